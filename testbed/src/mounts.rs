//! Lines of `/proc/self/mountinfo` (proc(5)).

/// A mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// What of the file system is mounted; `/` if all of it.
    pub root: &'a str,
    /// Where it is mounted.
    pub point: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Whether it may be written there.
    pub writable: bool,
}

impl<'a> Mount<'a> {
    /// Reads one line; `None` if it is none.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        // "... <root> <mount point> <options> [optional fields] - <type> <source> <options>"
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        Some(Self {
            root: left.next()?,
            point: left.next()?,
            writable: left.next()?.split(',').any(|option| option == "rw"),
            kind: right.split(' ').next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_from_mountinfo() {
        let line = "35 25 0:30 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let mount = Mount {
            root: "/",
            point: "/sys/fs/cgroup",
            kind: "cgroup2",
            writable: true,
        };
        assert_eq!(Mount::parse(line), Some(mount));
        assert_eq!(Mount::parse("35 25 0:30 /"), None);
    }
}
