//! How fast small messages are decoded. To see the figures:
//!
//! ```sh
//! cargo test --release -p pyisolate-abi --test pickle -- speed --nocapture
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use pyisolate_abi::pickle::{Caps, TrustedNames, decode};

/// Slow enough for an unoptimised build on a busy machine, fast enough to notice that something
/// became quadratic or started to allocate by the megabyte.
const FLOOR_PER_SECOND: f64 = 10_000.0;

#[test]
fn small_messages_are_decoded_quickly() {
    let samples: [(&str, &[u8]); 4] = [
        ("7", b"\x80\x05K\x07."),
        ("'hello'", b"\x80\x05\x95\t\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94."),
        (
            "{'id': 1, 'name': 'x', 'ok': True}",
            b"\x80\x05\x95\x1c\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x02id\x94K\x01\x8c\x04name\x94\x8c\x01x\x94\x8c\x02ok\x94\x88u.",
        ),
        (
            "datetime.date(2024, 1, 2)",
            b"\x80\x05\x95 \x00\x00\x00\x00\x00\x00\x00\x8c\x08datetime\x94\x8c\x04date\x94\x93\x94C\x04\x07\xe8\x01\x02\x94\x85\x94R\x94.",
        ),
    ];
    let (trusted, caps) = (TrustedNames::default(), Caps::default());
    for (expression, pickle) in samples {
        let started = Instant::now();
        let mut count = 0u32;
        while started.elapsed() < Duration::from_millis(200) {
            for _ in 0..1000 {
                let message = decode(black_box(pickle), &[], &trusted, &caps);
                assert!(black_box(message).is_ok(), "{expression}");
            }
            count += 1000;
        }
        let rate = f64::from(count) / started.elapsed().as_secs_f64();
        println!("{rate:12.0} messages/s  {expression}");
        assert!(rate > FLOOR_PER_SECOND, "{expression}: {rate:.0} messages/s");
    }
}
