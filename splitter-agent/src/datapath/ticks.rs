//! Ticks of the kernel's timer, by which the programs tell the time.

use std::time::Duration;

use rustix::time::{ClockId, clock_getres, clock_gettime};

/// What the count of ticks was when the machine started, in seconds before it wraps around at 32 bits
/// (include/linux/jiffies.h, `INITIAL_JIFFIES`).
const BEFORE_WRAPPING: u64 = 300;

/// The time from one tick to the next: the resolution of the coarse clocks.
pub(super) fn length() -> Duration {
    let length = clock_getres(ClockId::MonotonicCoarse);
    Duration::from_nanos(u64::try_from(length.tv_nsec).unwrap_or_default())
}

/// How long ago a tick was, by its number; to a second or so, since a machine counts its first ticks before
/// its clock runs.
pub(super) fn since(number: u64) -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    );
    now.saturating_sub(since_start(number, length()))
}

/// How long after the start of the machine a tick was.
fn since_start(number: u64, length: Duration) -> Duration {
    let per_second = 1_000_000_000 / u64::from(length.subsec_nanos().max(1));
    let first = (1 << 32) - BEFORE_WRAPPING * per_second;
    let nanoseconds = u128::from(number.saturating_sub(first)) * length.as_nanos();
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_counted_from_five_minutes_before_they_wrap_around() {
        let length = Duration::from_millis(4);
        let first = u64::from(u32::MAX) + 1 - 300 * 250;
        assert_eq!(since_start(first, length), Duration::ZERO);
        assert_eq!(since_start(first + 250, length), Duration::from_secs(1));
        assert_eq!(since_start(0, length), Duration::ZERO);
        assert_eq!(
            since_start(first + 250 * 1_000_000, length),
            Duration::from_secs(1_000_000)
        );
    }

    #[test]
    fn a_tick_takes_one_to_ten_milliseconds() {
        let length = length();
        assert!(
            (Duration::from_micros(900)..=Duration::from_millis(10)).contains(&length),
            "{length:?}"
        );
    }
}
