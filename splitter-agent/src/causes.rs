//! Errors for people: with their causes, each said once.

use std::error::Error;

/// An error and its causes in one line. A cause that an error above it has quoted already is
/// left out: some libraries put it into their message and give it as the source as well.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("cannot open the door")]
        Plain(#[source] Box<Layer>),
        #[error("door error: {0}")]
        Quoting(#[source] Box<Layer>),
        #[error("it is locked ({source}): find the key")]
        Remedy { source: io::Error },
    }

    fn locked() -> Box<Layer> {
        let source = io::Error::other("no key");
        Box::new(Layer::Remedy { source })
    }

    #[test]
    fn every_cause_is_said() {
        let error = Layer::Plain(locked());
        assert_eq!(
            with_causes(&error),
            "cannot open the door: it is locked (no key): find the key"
        );
    }

    #[test]
    fn a_cause_that_was_quoted_is_not_said_again() {
        let error = Layer::Plain(Box::new(Layer::Quoting(locked())));
        assert_eq!(
            with_causes(&error),
            "cannot open the door: door error: it is locked (no key): find the key"
        );
    }

    #[test]
    fn what_libraries_say_twice_is_said_once() {
        let map = aya::maps::MapError::CreateError {
            name: "SPLITS".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::EPERM),
        };
        let error = crate::datapath::LoadError::Object(Box::new(aya::EbpfError::MapError(map)));
        let text = with_causes(&error);
        assert_eq!(text.matches("SPLITS").count(), 1, "{text}");
        assert_eq!(text.matches("Operation not permitted").count(), 1, "{text}");
    }
}
