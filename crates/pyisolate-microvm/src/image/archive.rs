//! Writes a cpio archive of the kind that the kernel takes as an initramfs: `newc`.
//!
//! Nothing of the host's files is in it but their bytes: owners, times and numbers are made up, the
//! same each time.

use std::io::{self, Write};

/// The header's magic word: newc, without checksums.
const MAGIC: &str = "070701";

/// The name of the last entry.
const END: &[u8] = b"TRAILER!!!";

/// Everything in the archive begins at a multiple of this.
const ALIGNMENT: u64 = 4;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// A folder.
    Folder,
    /// A file with these bytes.
    File(&'a [u8]),
    /// A character device.
    Device {
        /// What drives it.
        major: u32,
        /// Which of those.
        minor: u32,
    },
}

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    written_bytes: u64,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0, written_bytes: 0 }
    }

    /// Adds an entry. `name` has no slash at its beginning; the folder that it is in comes first.
    ///
    /// # Errors
    /// What writing said; [`io::ErrorKind::FileTooLarge`] for 4 GiB and more.
    pub(super) fn add(&mut self, name: &[u8], mode: u32, content: Content<'_>) -> io::Result<()> {
        let (kind, links, bytes, device) = match content {
            Content::Folder => (FOLDER, 2, &[][..], (0, 0)),
            Content::File(bytes) => (FILE, 1, bytes, (0, 0)),
            Content::Device { major, minor } => (CHARACTER_DEVICE, 1, &[][..], (major, minor)),
        };
        self.entries += 1;
        self.entry(name, self.entries, kind | mode, links, bytes, device)
    }

    /// How long it is, in bytes.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Writes the end; gives back where it was written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, 0, 1, &[], (0, 0))?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &[u8],
        number: u32,
        mode: u32,
        links: u32,
        bytes: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let name_size =
            u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        let (owner, group, time, place, checksum) = (0, 0, 0, (0, 0), 0);
        let mut header = String::from(MAGIC);
        for field in [
            number, mode, owner, group, links, time, size, place.0, place.1, device.0, device.1,
            name_size, checksum,
        ] {
            header.push_str(&format!("{field:08x}"));
        }
        self.write(header.as_bytes())?;
        self.write(name)?;
        self.write(&[0])?;
        self.align()?;
        self.write(bytes)?;
        self.align()
    }

    fn align(&mut self) -> io::Result<()> {
        let over = self.written_bytes % ALIGNMENT;
        let padding = [0; ALIGNMENT as usize];
        if over > 0 { self.write(&padding[over as usize..]) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The length of an archive of entries with names and contents of these lengths.
pub(super) fn length_bytes(entries: impl Iterator<Item = (usize, u64)>) -> u64 {
    const HEADER: u64 = 6 + 13 * 8;
    let entry = |(name, bytes): (usize, u64)| {
        (HEADER + name as u64 + 1).next_multiple_of(ALIGNMENT) + bytes.next_multiple_of(ALIGNMENT)
    };
    entries.chain([(END.len(), 0)]).map(entry).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::program;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.add(b"dev", 0o755, Content::Folder).unwrap();
        archive.add(b"dev/null", 0o666, Content::Device { major: 1, minor: 3 }).unwrap();
        archive.add(b"empty", 0o644, Content::File(b"")).unwrap();
        archive.add(b"init", 0o755, Content::File(b"#!/bin/sh\n")).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn its_length_is_known_before() {
        let entries = [(3, 0), (8, 0), (5, 0), (4, 10)];
        assert_eq!(sample().len() as u64, length_bytes(entries.into_iter()));
    }

    #[test]
    fn it_is_the_same_each_time_and_says_nothing_of_the_host() {
        assert_eq!(sample(), sample());
        let text = sample();
        let header = std::str::from_utf8(&text[..110]).unwrap();
        let fields: Vec<_> = header.as_bytes()[6..].chunks(8).collect();
        assert_eq!(&header[..6], "070701");
        assert_eq!(fields[0], b"00000001", "its number");
        assert_eq!(fields[1], b"000041ed", "a folder, 0755");
        assert!(fields[2..4].iter().chain(&fields[5..6]).all(|field| *field == b"00000000"));
    }

    #[test]
    fn the_program_cpio_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, sample()).unwrap();
        let mut command = program::program("cpio");
        command
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .stdin(std::fs::File::open(&path).unwrap());
        let listed = match program::output(&mut command, std::time::Duration::from_secs(60)) {
            Ok(listed) => String::from_utf8(listed).unwrap(),
            Err(program::ProgramError::Run { .. }) => {
                eprintln!("skipped: there is no cpio");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let lines: Vec<Vec<_>> =
            listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<_> = lines.iter().filter_map(|line| line.last().copied()).collect();
        assert_eq!(names, ["dev", "dev/null", "empty", "init"]);
        let modes: Vec<_> = lines.iter().map(|line| line[0]).collect();
        assert_eq!(modes, ["drwxr-xr-x", "crw-rw-rw-", "-rw-r--r--", "-rwxr-xr-x"]);
        assert!(listed.contains("1,   3") || listed.contains("1, 3"), "{listed}");
    }
}
