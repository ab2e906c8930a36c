//! Numbers and shares as the demo writes them.

use std::time::Duration;

/// How many characters a bar has.
const BAR: usize = 32;

/// A bar that is full at 1.
pub(crate) fn bar(share: f64) -> String {
    // An eighth of a character is as fine as it gets.
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let (full, part) = (eighths / 8, PARTS[eighths % 8]);
    let rest = BAR - full - usize::from(!part.is_empty());
    format!("{}{part}{}", "█".repeat(full), "·".repeat(rest))
}

/// Two weights as people write them.
pub(crate) fn weights([one, two]: [u64; 2]) -> String {
    format!("{one}/{two}")
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A short time.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis().max(1))
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_share_and_all_of_one_width() {
        for (share, full) in [(0.0, 0), (0.5, 16), (0.9, 28), (1.0, 32)] {
            let bar = bar(share);
            assert_eq!(bar.chars().count(), BAR, "{bar}");
            assert_eq!(bar.matches('█').count(), full, "{bar}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
