//! The filesystem capability, on real folders. Every attack has a control: the same path by
//! ordinary means does leak.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod actions;
mod handles;
mod kinds;
mod links;
mod listing;
mod moves;
mod quota;
mod races;
mod setup;
mod trees;
