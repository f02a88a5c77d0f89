//! The conformance suite, as far as it is this program's: where it is to be had.
//!
//! The suite drives the Python package. The package's entry point runs it before this command is
//! asked, so whoever comes here has the stand-alone command, or passed another word first.

use std::io::{self, Write};

use crate::flags::Conformance;
use crate::status::Status;

/// Says how to run the suite.
pub(crate) fn refuse(flags: &Conformance) -> Status {
    let mut line = vec!["python -m pyisolate conformance"];
    line.extend(flags.words.iter().map(String::as_str));
    // Where nobody reads the words there is nobody to tell.
    let _ = writeln!(
        io::stderr(),
        "pyisolate: the conformance suite drives the Python package, and comes with it; where that \
         is installed, run: {}",
        line.join(" ")
    );
    Status::Usage
}
