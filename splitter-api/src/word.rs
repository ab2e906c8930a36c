//! Enumerations whose values are words in JSON.

/// Declares an enumeration with the word of each value. A word that is not known is read as
/// `Unknown`, so that a reader survives the values of a newer agent.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $($(#[$value_attribute:meta])* $value:ident = $word:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Deserialize, serde::Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$value_attribute])* #[serde(rename = $word)] $value,)+
            /// A value of a newer agent.
            #[serde(other, rename = "unknown")]
            #[cfg_attr(test, schemars(skip))]
            Unknown,
        }

        impl $name {
            /// The word that stands for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                    Self::Unknown => "unknown",
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::{AttachMode, Effect, LeafState, Severity, SplitState, Verdict};

    #[test]
    fn a_word_that_is_not_known_is_read_as_unknown() {
        assert_eq!(
            serde_json::from_str::<LeafState>("\"draining\"").unwrap(),
            LeafState::Unknown
        );
        assert_eq!(
            serde_json::from_str::<Verdict>("\"mirror\"").unwrap(),
            Verdict::Unknown
        );
    }

    #[test]
    fn a_word_is_written_read_and_displayed_alike() {
        macro_rules! check {
            ($($value:expr),+) => {$(
                let json = serde_json::to_value($value).unwrap();
                assert_eq!(json, $value.as_str());
                assert_eq!($value.to_string(), $value.as_str());
                assert_eq!($value, serde_json::from_value(json).unwrap());
            )+};
        }
        check!(
            Verdict::PassThrough,
            LeafState::NoReadyEndpoints,
            SplitState::AsConfigured,
            Severity::Refused,
            Effect::SwitchedOff,
            AttachMode::Override
        );
    }
}
