//! Weights of backends, exactly.
//!
//! SMI TrafficSplit says `weight` is a Kubernetes Quantity in v1alpha1 and a whole number
//! from v1alpha2 on, and the CRD that carries them converts nothing between versions: a
//! reader of any version meets any of these forms.

use std::fmt;

use serde_json::Value;

use super::field::shown;

const NANOS: u128 = 1_000_000_000;

/// Largest weight: the largest that Kubernetes itself can hold.
const LARGEST: u128 = i64::MAX as u128;

/// A weight: a number of 0 or more, in billionths, as fine as a Kubernetes Quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight {
    nanos: u128,
}

/// Why something is not a weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// It is not there.
    #[error(
        "weight is missing, perhaps because a tool left out a zero (Go's omitempty does); write \
         weight: 0 for none of the connections. Until then the root Service behaves as if this \
         TrafficSplit did not exist"
    )]
    Missing,
    /// It is no number at all.
    #[error("weight {0} is not a number; use a whole number such as 90 or a quantity such as 900m")]
    NotANumber(String),
    /// It is below 0.
    #[error("weight {0} is below 0; use a whole number of 0 or more")]
    Negative(String),
    /// It is a number with a fraction.
    #[error(
        "weight {0} is not a whole number; weights are relative, so multiply all of them until \
         they are whole"
    )]
    Fractional(String),
    /// It is finer than a Quantity can be.
    #[error(
        "weight {0} is finer than one billionth; weights are relative, so multiply all of them"
    )]
    TooFine(String),
    /// It is larger than a Quantity can be, or than JSON carries exactly.
    #[error("weight {0} is too large; weights are relative, so divide all of them")]
    TooLarge(String),
}

/// What is wrong with a number, before it is known how it was written.
#[derive(Clone, Copy)]
enum Flaw {
    NotANumber,
    Negative,
    TooFine,
    TooLarge,
}

impl Weight {
    /// The weight that a whole number stands for.
    #[must_use]
    pub const fn whole(number: u32) -> Self {
        Self {
            nanos: number as u128 * NANOS,
        }
    }

    /// Reads a weight: a whole number, a float without a fraction, or a Kubernetes
    /// Quantity as a string (`"500m"`, `"1"`, `"1e2"`, `"10k"`, `"1Ki"`, `"0.5"`).
    ///
    /// # Errors
    ///
    /// Whatever is not a weight, with what to write instead.
    pub fn from_json(value: &Value) -> Result<Self, WeightError> {
        match value {
            Value::Null => Err(WeightError::Missing),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    Self::from_whole(number.into()).map_err(|_| WeightError::TooLarge(shown(value)))
                } else if number.as_i64().is_some() {
                    Err(WeightError::Negative(shown(value)))
                } else {
                    Self::from_float(number.as_f64().unwrap_or(f64::NAN), value)
                }
            }
            Value::String(text) => Self::from_quantity(text).map_err(|flaw| {
                let text = shown(value);
                match flaw {
                    Flaw::NotANumber => WeightError::NotANumber(text),
                    Flaw::Negative => WeightError::Negative(text),
                    Flaw::TooFine => WeightError::TooFine(text),
                    Flaw::TooLarge => WeightError::TooLarge(text),
                }
            }),
            _ => Err(WeightError::NotANumber(shown(value))),
        }
    }

    /// The weight in billionths.
    #[must_use]
    pub const fn nanos(self) -> u128 {
        self.nanos
    }

    /// Whether it is 0.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum of two weights. A weight is below 2^93 billionths, so that no list that
    /// fits into memory comes near the end of the range.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
        }
    }

    fn from_whole(number: u128) -> Result<Self, Flaw> {
        if number > LARGEST {
            return Err(Flaw::TooLarge);
        }
        Ok(Self {
            nanos: number * NANOS,
        })
    }

    fn from_float(number: f64, value: &Value) -> Result<Self, WeightError> {
        if number < 0.0 {
            Err(WeightError::Negative(shown(value)))
        } else if number.fract() != 0.0 {
            Err(WeightError::Fractional(shown(value)))
        } else if number <= 9_007_199_254_740_992.0 {
            // Up to 2^53 a float is the number that was written, not a neighbour of it.
            Ok(Self {
                nanos: number as u128 * NANOS,
            })
        } else {
            Err(WeightError::TooLarge(shown(value)))
        }
    }

    /// Reads `<signedNumber><suffix>` (Kubernetes API, `resource.Quantity`).
    fn from_quantity(text: &str) -> Result<Self, Flaw> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (mut twos, mut tens) = scale(suffix)?;

        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(Flaw::NotANumber);
        }
        tens = tens.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Ok(Self::default());
        }
        if negative {
            return Err(Flaw::Negative);
        }
        let zeros = i64::try_from(digits.len() - significant.len()).unwrap_or(i64::MAX);
        tens = tens.saturating_add(zeros).saturating_add(9);

        // Now: significant × 2^twos × 10^tens billionths.
        let mut nanos: u128 = significant.parse().map_err(|_| {
            if tens < 0 {
                Flaw::TooFine
            } else {
                Flaw::TooLarge
            }
        })?;
        while tens < 0 {
            if nanos.is_multiple_of(10) {
                nanos /= 10;
            } else if twos > 0 && nanos.is_multiple_of(5) {
                nanos /= 5;
                twos -= 1;
            } else {
                return Err(Flaw::TooFine);
            }
            tens += 1;
        }
        let factor = u32::try_from(tens)
            .ok()
            .and_then(|tens| 10u128.checked_pow(tens))
            .and_then(|factor| factor.checked_mul(1u128.checked_shl(twos)?))
            .ok_or(Flaw::TooLarge)?;
        let nanos = nanos.checked_mul(factor).ok_or(Flaw::TooLarge)?;
        if nanos > LARGEST * NANOS {
            return Err(Flaw::TooLarge);
        }
        Ok(Self { nanos })
    }
}

/// The power of two and of ten that a suffix stands for.
fn scale(suffix: &str) -> Result<(u32, i64), Flaw> {
    Ok(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Flaw::NotANumber)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Flaw::NotANumber);
            }
            // Beyond 32 bits it is absurd in either direction, but 0 times it is still 0.
            let size = i64::from(digits.parse::<u32>().unwrap_or(u32::MAX));
            (
                0,
                if exponent.starts_with('-') {
                    -size
                } else {
                    size
                },
            )
        }
    })
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.nanos / NANOS, self.nanos % NANOS);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{rest:09}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<String, WeightError> {
        Weight::from_json(value).map(|weight| weight.to_string())
    }

    #[test]
    fn every_form_is_exact() {
        for (value, weight) in [
            (json!(0), "0"),
            (json!(90), "90"),
            (json!(90.0), "90"),
            (json!(1e2), "100"),
            (json!(-0.0), "0"),
            (json!(i64::MAX), "9223372036854775807"),
            (json!("90"), "90"),
            (json!("+90"), "90"),
            (json!("0"), "0"),
            (json!("-0"), "0"),
            (json!("500m"), "0.5"),
            (json!("1500m"), "1.5"),
            (json!("0.5"), "0.5"),
            (json!(".5"), "0.5"),
            (json!("5."), "5"),
            (json!("1e2"), "100"),
            (json!("1E2"), "100"),
            (json!("1E"), "1000000000000000000"),
            (json!("25e-1"), "2.5"),
            (json!("10k"), "10000"),
            (json!("1Ki"), "1024"),
            (json!("0.5Ki"), "512"),
            (json!("1n"), "0.000000001"),
            (json!("1u"), "0.000001"),
            (json!("1000000000000000000000000000000e-30"), "1"),
            (json!("0e999999999999999999999"), "0"),
        ] {
            assert_eq!(read(&value).as_deref(), Ok(weight), "{value}");
        }
    }

    #[test]
    fn what_is_no_weight_says_what_to_write() {
        let message = |value: Value| read(&value).unwrap_err().to_string();
        assert_eq!(
            message(json!(-5)),
            "weight -5 is below 0; use a whole number of 0 or more"
        );
        assert_eq!(
            message(json!("-500m")),
            "weight \"-500m\" is below 0; use a whole number of 0 or more"
        );
        assert!(message(json!(0.5)).starts_with("weight 0.5 is not a whole number"));
        assert!(message(json!(null)).starts_with("weight is missing"));
        for bad in [
            json!(""),
            json!(" 1"),
            json!("ten"),
            json!("."),
            json!("1.2.3"),
            json!("1e"),
            json!("1e+"),
            json!("1 k"),
            json!("50%"),
            json!("١"),
            json!(true),
            json!([]),
            json!({}),
        ] {
            assert!(
                matches!(read(&bad), Err(WeightError::NotANumber(_))),
                "{bad}"
            );
        }
        for bad in [
            json!(u64::MAX),
            json!(1e300),
            json!("1e300"),
            json!("10E"),
            json!("8Ei"),
            json!("1e99999999999999999999"),
            json!(1e17),
            json!("9".repeat(100)),
        ] {
            assert!(matches!(read(&bad), Err(WeightError::TooLarge(_))), "{bad}");
        }
        for bad in [
            json!("0.1n"),
            json!("1e-10"),
            json!("0.0000000001Ki"),
            json!("1e-99999999999999999999"),
        ] {
            assert!(matches!(read(&bad), Err(WeightError::TooFine(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_weight_or_an_error(text in "[-+]?[0-9.]{0,50}[eEnumkKMGTPi+-]{0,3}[0-9]{0,25}") {
            let _ = read(&Value::String(text));
        }

        #[test]
        fn text_and_number_agree(number in 0..=i64::MAX) {
            prop_assert_eq!(
                Weight::from_json(&json!(number)),
                Weight::from_json(&json!(number.to_string()))
            );
        }

        #[test]
        fn display_reads_back(number in 0..=1_000_000_000_000u64) {
            let weight = Weight::from_json(&json!(format!("{number}n"))).unwrap();
            prop_assert_eq!(Weight::from_json(&json!(weight.to_string())), Ok(weight));
        }
    }
}
