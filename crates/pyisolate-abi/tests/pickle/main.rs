//! The pickle decoder against real pickles, hostile pickles and random ones.

mod hostile;
mod properties;
mod render;
mod speed;
mod vectors;
