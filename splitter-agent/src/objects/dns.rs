//! Names as Kubernetes allows them (RFC 1123; Kubernetes, "Object Names and IDs").

/// Whether `text` is a DNS label: what a namespace and a Service are named by.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

/// Whether `text` is a DNS subdomain: what most objects are named by.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_of_any_length)
}

fn is_label_of_any_length(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        assert!(is_label("web"));
        assert!(is_label("web-2"));
        assert!(is_label(&"a".repeat(63)));
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn subdomains() {
        assert!(is_subdomain("web.v2"));
        assert!(!is_subdomain("web..v2"));
        assert!(!is_subdomain(""));
        assert!(!is_subdomain(&"a".repeat(254)));
    }
}
