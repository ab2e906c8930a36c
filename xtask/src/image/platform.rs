//! What images are built for.

use std::env;
use std::fmt;
use std::str::FromStr;

/// An operating system and a processor, as images name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// `linux/amd64`
    Amd64,
    /// `linux/arm64`
    Arm64,
}

impl Platform {
    /// Every platform that images are made for.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The platform of this machine; `linux/amd64` on a machine that no image is made for, which
    /// can still build them all.
    #[must_use]
    pub fn host() -> Self {
        Self::ALL
            .into_iter()
            .find(|platform| platform.is_host())
            .unwrap_or(Self::Amd64)
    }

    /// Whether this machine runs programs of the platform.
    #[must_use]
    pub fn is_host(self) -> bool {
        env::consts::ARCH == self.rust_architecture()
    }

    /// The architecture, as images name it.
    #[must_use]
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target that programs are compiled for. With musl they are static, and need no file
    /// beside themselves.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    const fn rust_architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "linux/{}", self.architecture())
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|platform| text == platform.to_string())
            .ok_or_else(|| {
                let [one, other] = Self::ALL;
                format!("give {one} or {other}")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_named_as_in_images() {
        assert_eq!("linux/arm64".parse(), Ok(Platform::Arm64));
        for platform in Platform::ALL {
            assert_eq!(platform.to_string().parse(), Ok(platform));
        }
        let error = "windows/amd64".parse::<Platform>().unwrap_err();
        assert_eq!(error, "give linux/amd64 or linux/arm64");
    }
}
