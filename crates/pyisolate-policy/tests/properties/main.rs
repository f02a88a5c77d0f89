//! What holds for every policy, text and act.
#![expect(clippy::unwrap_used, reason = "a test may fail anywhere, also in what builds its values")]

mod decide;
mod strategies;
mod text;
