//! What confines a cell, as a value: each layer with how far it is enforced and why no further.
//!
//! A cell sends its report before any guest code runs in it, so a report is honest; the decoder
//! does not rely on that and treats the bytes like any other from the jail.
//!
//! The encoding is a line a layer, `name status detail`, with no control characters in the detail.

use std::fmt;

use crate::layer::{LayerName, Status};

/// More than the layers there are: a report with more lines is no report.
pub const LAYERS_MAX: usize = 32;

/// The longest detail that is kept. Ours are below 160 bytes; longer ones are cut when encoded,
/// refused when decoded.
pub const DETAIL_MAX_BYTES: usize = 512;

/// The longest encoded report: every line of every layer at its longest, a name and a status being
/// below 64 bytes.
pub const ENCODED_MAX_BYTES: usize = LAYERS_MAX * (DETAIL_MAX_BYTES + 64);

/// One layer and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub name: LayerName,
    /// How far enforced.
    pub status: Status,
    /// What exactly, or why not.
    pub detail: String,
}

/// All layers, in the order they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The layers. No name comes twice.
    pub layers: Vec<Layer>,
}

/// Why bytes are not a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More than [`ENCODED_MAX_BYTES`].
    #[error("a confinement report of {0} bytes is too long")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("a confinement report is not UTF-8")]
    NotText,
    /// More than [`LAYERS_MAX`] lines.
    #[error("a confinement report has too many layers")]
    TooManyLayers,
    /// A line without name, status and detail, or with unknown ones, or with control characters.
    #[error("line {0} of a confinement report is malformed")]
    BadLine(usize),
    /// A layer that an earlier line named.
    #[error("line {0} of a confinement report repeats a layer")]
    Repeated(usize),
}

impl Report {
    /// Adds a layer.
    pub fn add(&mut self, name: LayerName, status: Status, detail: impl Into<String>) {
        self.layers.push(Layer { name, status, detail: detail.into() });
    }

    /// The layer of a name.
    #[must_use]
    pub fn get(&self, name: LayerName) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// The report as lines of text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for Layer { name, status, detail } in &self.layers {
            let mut end = detail.len().min(DETAIL_MAX_BYTES);
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            text.push_str(name.as_str());
            text.push(' ');
            text.push_str(status.as_str());
            text.push(' ');
            text.extend(
                detail[..end].chars().map(|char| if char.is_control() { '?' } else { char }),
            );
            text.push('\n');
        }
        text
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// For anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > ENCODED_MAX_BYTES {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)?;
        let mut report = Self::default();
        for (number, line) in text.split_terminator('\n').enumerate() {
            if number >= LAYERS_MAX {
                return Err(DecodeError::TooManyLayers);
            }
            let layer = decode_line(line).ok_or(DecodeError::BadLine(number + 1))?;
            if report.get(layer.name).is_some() {
                return Err(DecodeError::Repeated(number + 1));
            }
            report.layers.push(layer);
        }
        Ok(report)
    }
}

fn decode_line(line: &str) -> Option<Layer> {
    let mut parts = line.splitn(3, ' ');
    let name = LayerName::parse(parts.next()?)?;
    let status = Status::parse(parts.next()?)?;
    let detail = parts.next()?;
    let fits = detail.len() <= DETAIL_MAX_BYTES && !detail.chars().any(char::is_control);
    fits.then(|| Layer { name, status, detail: detail.to_owned() })
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Layer { name, status, detail }) in self.layers.iter().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(formatter, "{newline}{name:<20}{status:<10}{detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::default();
        report.add(LayerName::Seccomp, Status::Enforced, "123 calls");
        report.add(LayerName::Landlock, Status::Partial, "ABI 3; lacks: TCP");
        report.add(LayerName::Cgroup, Status::Missing, "");
        report
    }

    #[test]
    fn round_trip() {
        assert_eq!(Report::decode(sample().encode().as_bytes()), Ok(sample()));
        assert_eq!(Report::decode(b""), Ok(Report::default()));
    }

    #[test]
    fn control_characters_cannot_forge_a_layer() {
        let mut report = Report::default();
        report.add(LayerName::Seccomp, Status::Missing, "x\nlandlock enforced y");
        assert_eq!(Report::decode(report.encode().as_bytes()).unwrap().layers.len(), 1);
    }

    #[test]
    fn long_details_are_cut_at_a_character() {
        let mut report = Report::default();
        report.add(LayerName::Root, Status::Enforced, "é".repeat(DETAIL_MAX_BYTES));
        let decoded = Report::decode(report.encode().as_bytes()).unwrap();
        assert_eq!(decoded.layers[0].detail.len(), DETAIL_MAX_BYTES);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let long = vec![b'a'; ENCODED_MAX_BYTES + 1];
        assert_eq!(Report::decode(&long), Err(DecodeError::TooLong(long.len())));
        assert_eq!(Report::decode(&[0xff]), Err(DecodeError::NotText));
        for bad in [
            "seccomp\n",
            "seccomp enforced\n",
            "other enforced x\n",
            "seccomp maybe x\n",
            "\n",
            "seccomp enforced \t\n",
        ] {
            assert_eq!(Report::decode(bad.as_bytes()), Err(DecodeError::BadLine(1)), "{bad:?}");
        }
        assert_eq!(
            Report::decode(b"root enforced x\nroot missing y\n"),
            Err(DecodeError::Repeated(2))
        );
    }

    #[test]
    fn no_truncation_or_damage_panics() {
        let text = sample().encode().into_bytes();
        for at in 0..text.len() {
            let _ = Report::decode(&text[..at]);
            for value in 0..=255 {
                let mut damaged = text.clone();
                damaged[at] = value;
                let _ = Report::decode(&damaged);
            }
        }
    }
}
