//! The suites that come with the Python package, as far as they are this program's: where they are
//! to be had.
//!
//! A suite drives the Python package. The package's entry point runs it before this command is
//! asked, so whoever comes here has the stand-alone command, or passed another word first.

use std::io::{self, Write};

use crate::flags::Suite;
use crate::status::Status;

/// Says how to run the suite of this name.
pub(crate) fn refuse(name: &str, flags: &Suite) -> Status {
    let mut line = vec!["python -m pyisolate", name];
    line.extend(flags.words.iter().map(String::as_str));
    // Where nobody reads the words there is nobody to tell.
    let _ = writeln!(
        io::stderr(),
        "pyisolate: the {name} suite drives the Python package, and comes with it; where that is \
         installed, run: {}",
        line.join(" ")
    );
    Status::Usage
}
