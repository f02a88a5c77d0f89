//! `--limit NAME=VALUE` and `--timeout SECONDS`.

use pyisolate_supervisor::policy::{Unit, parse_thousandths};
use pyisolate_supervisor::{LimitName, Limits};

/// How alike two names are before one is suggested for the other; of 1.
const ALIKE: f64 = 0.75;

/// One `--limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: LimitName,
    pub(crate) value: u64,
}

/// Reads `NAME=VALUE`.
pub(crate) fn setting(text: &str) -> Result<Setting, String> {
    let (name, value) =
        text.split_once('=').ok_or("a limit is written NAME=VALUE, such as mem_bytes=256MiB")?;
    let name = LimitName::ALL
        .into_iter()
        .find(|known| known.as_str() == name.trim())
        .ok_or_else(|| unknown(name.trim()))?;
    quantity(value.trim(), name.unit(), "").map(|value| Setting { name, value })
}

/// Reads `--timeout`: seconds, or a number with a unit, as milliseconds.
pub(crate) fn timeout(text: &str) -> Result<u64, String> {
    quantity(text.trim(), Unit::Milliseconds, "s")
}

/// Puts settings over what there is.
pub(crate) fn apply(settings: &[Setting], mut limits: Limits) -> Limits {
    for setting in settings {
        *limits.slot(setting.name) = setting.value;
    }
    limits
}

/// A value as it could be given, in the largest unit that divides it.
pub(crate) fn write(name: LimitName, value: u64) -> String {
    let units: &[(&str, u64)] = match name.unit() {
        Unit::Milliseconds => &[("s", 1000), ("", 1)],
        Unit::Bytes => &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)],
        Unit::Count | Unit::Thousandths => return name.written(value),
    };
    let fits = |(_, size): &&(&str, u64)| value != 0 && value.is_multiple_of(*size);
    let (suffix, size) = units.iter().find(fits).unwrap_or(&("", 1));
    format!("{}{suffix}", value / size)
}

fn unknown(name: &str) -> String {
    let like = |known: &str| {
        let begins = !name.is_empty() && known.starts_with(name);
        if begins { 1.0 } else { strsim::jaro_winkler(known, name) }
    };
    let names = LimitName::ALL.into_iter().map(LimitName::as_str);
    // Of two that begin alike, the shorter.
    let better = |a: &&str, b: &&str| like(a).total_cmp(&like(b)).then(b.len().cmp(&a.len()));
    let best = names.clone().max_by(better).unwrap_or_default();
    if like(best) >= ALIKE {
        format!("there is no limit '{name}'; did you mean '{best}'?")
    } else {
        format!("there is no limit '{name}'; there are {}", names.collect::<Vec<_>>().join(", "))
    }
}

/// A number with its unit; `bare` is the unit of one that has none.
fn quantity(text: &str, unit: Unit, bare: &str) -> Result<u64, String> {
    if unit == Unit::Thousandths {
        return parse_thousandths(text).ok_or_else(|| wrong(text, unit, bare));
    }
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, suffix) = (&text[..end], text[end..].trim_start());
    let suffix = if suffix.is_empty() { bare } else { suffix };
    let size = size(suffix, unit).ok_or_else(|| wrong(text, unit, bare))?;
    let digits = number.replace('_', "");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let part = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let exact = || {
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        let whole: u64 = part(whole)?;
        let rest = u128::from(part(fraction)?) * u128::from(size);
        let rest = u64::try_from(rest / u128::from(scale)).ok()?;
        whole.checked_mul(size)?.checked_add(rest)
    };
    exact().ok_or_else(|| wrong(text, unit, bare))
}

/// How much a suffix stands for; `None` if the limit counts something else.
fn size(suffix: &str, unit: Unit) -> Option<u64> {
    Some(match (unit, suffix) {
        (_, "") | (Unit::Milliseconds, "ms") | (Unit::Bytes, "B") => 1,
        (Unit::Milliseconds, "s") => 1000,
        (Unit::Milliseconds, "m" | "min") => 60_000,
        (Unit::Milliseconds, "h") => 3_600_000,
        (Unit::Bytes, "kB" | "KB") => 1000,
        (Unit::Bytes, "MB") => 1_000_000,
        (Unit::Bytes, "GB") => 1_000_000_000,
        (Unit::Bytes, "K" | "k" | "KiB") => 1 << 10,
        (Unit::Bytes, "M" | "MiB") => 1 << 20,
        (Unit::Bytes, "G" | "GiB") => 1 << 30,
        _ => return None,
    })
}

fn wrong(text: &str, unit: Unit, bare: &str) -> String {
    let form = match (unit, bare) {
        (Unit::Milliseconds, "s") => "a time: seconds, or with a unit, such as 2.5, 500ms or 1m",
        (Unit::Milliseconds, _) => "a time: milliseconds, or with a unit, such as 1500, 2.5s or 1m",
        (Unit::Bytes, _) => "a size: bytes, or with a unit, such as 1048576, 64KiB or 1.5GiB",
        (Unit::Count, _) => "a whole number without a unit",
        (Unit::Thousandths, _) => "a number with at most three decimal places, such as 0.5",
    };
    format!("'{text}' is not {form}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<u64, String> {
        setting(text).map(|setting| setting.value)
    }

    #[test]
    fn values_take_units() {
        for (text, expected) in [
            ("wall_time_ms=5000", 5000),
            ("wall_time_ms=2s", 2000),
            ("cpu_ms=1.5s", 1500),
            ("cpu_ms=2m", 120_000),
            ("mem_bytes=256MiB", 256 << 20),
            ("mem_bytes=0.5GiB", 512 << 20),
            ("mem_bytes=1_000_000", 1_000_000),
            ("output_bytes_max=64k", 64 << 10),
            ("message_bytes_max=10 MB", 10_000_000),
            (" open_files_max = 32 ", 32),
            ("child_work_max=4", 4),
            ("cpu_rate_max=0.5", 500),
            ("cpu_rate_max=2", 2000),
            ("output_bytes_per_second=1MiB", 1 << 20),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
        assert_eq!(timeout("2"), Ok(2000));
        assert_eq!(timeout("0.25"), Ok(250));
        assert_eq!(timeout("500ms"), Ok(500));
    }

    #[test]
    fn nonsense_is_refused_with_the_form() {
        for text in [
            "mem_bytes=5s",
            "cpu_ms=1MiB",
            "cpu_ms=-1",
            "cpu_ms=",
            "cpu_ms=.",
            "cpu_ms=1.2.3",
            "mem_bytes=99999999999GiB",
            "open_files_max=3k",
            "cpu_rate_max=50%",
            "cpu_rate_max=0.0001",
        ] {
            assert!(value(text).unwrap_err().contains("is not a"), "{text}");
        }
        assert!(value("5").unwrap_err().contains("NAME=VALUE"));
    }

    #[test]
    fn an_unknown_limit_is_answered_with_the_likely_one() {
        for (given, meant) in [
            ("mem", "mem_bytes"),
            ("memory_bytes", "mem_bytes"),
            ("wall_time", "wall_time_ms"),
            ("walltime", "wall_time_ms"),
            ("open_files", "open_files_max"),
            ("cpu", "cpu_ms"),
        ] {
            let told = value(&format!("{given}=1")).unwrap_err();
            assert!(told.contains(&format!("did you mean '{meant}'")), "{given}: {told}");
        }
        assert!(value("zzz=1").unwrap_err().contains("there are wall_time_ms, cpu_ms"));
    }

    #[test]
    fn values_are_written_as_they_can_be_given() {
        for (name, number, text) in [
            (LimitName::WallTime, 1500, "1500"),
            (LimitName::WallTime, 60_000, "60s"),
            (LimitName::Memory, 512 << 20, "512MiB"),
            (LimitName::Memory, 1000, "1000"),
            (LimitName::Threads, 16, "16"),
            (LimitName::CpuRate, 1500, "1.5"),
        ] {
            assert_eq!(write(name, number), text);
            assert_eq!(value(&format!("{name}={text}")), Ok(number));
        }
    }

    #[test]
    fn every_limit_can_be_set() {
        for name in LimitName::ALL {
            let limits = apply(&[Setting { name, value: 77_777 }], Limits::default());
            assert_ne!(limits, Limits::default(), "{name}");
        }
    }
}
