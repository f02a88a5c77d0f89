//! The network as a cell has it, against real servers on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod by_messages;
mod http;
mod redirects;
mod revoked;
mod secret;
mod servers;
mod streams;
mod tls;
