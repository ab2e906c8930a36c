//! The running kernel's own types (`/sys/kernel/btf/vmlinux`, kernel 5.4 with
//! `CONFIG_DEBUG_INFO_BTF`): ids, and where members of structures are. The format is that of
//! Documentation/bpf/btf.rst.

use std::fs;
use std::io;

use splitter_common::socket_offsets::SocketOffsets;

/// Where the kernel shows its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// How deep structures without names may be in one another, for what is in them to be found.
const MAX_NESTING: u32 = 4;

/// The types of a kernel.
#[derive(Debug)]
pub(super) struct KernelTypes {
    bytes: Vec<u8>,
    types: std::ops::Range<usize>,
    names: std::ops::Range<usize>,
}

/// A type, and what comes after its head.
#[derive(Clone, Copy)]
struct Type {
    id: u32,
    name: u32,
    kind: u32,
    /// How many members, parameters or the like.
    count: u32,
    /// Whether members' offsets share their word with the sizes of bit fields.
    has_bit_fields: bool,
    body: usize,
}

impl KernelTypes {
    /// Those of the kernel that runs.
    ///
    /// # Errors
    ///
    /// `NotFound` if it was built without, `InvalidData` if they cannot be understood.
    pub(super) fn running() -> io::Result<Self> {
        Self::parse(fs::read(VMLINUX)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        if half(0)? != MAGIC {
            return None;
        }
        let word = |at| word(&bytes, at).map(|word| word as usize);
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            let end = start.checked_add(length)?;
            (end <= bytes.len()).then_some(start..end)
        };
        Some(Self {
            types: section(word(8)?, word(12)?)?,
            names: section(word(16)?, word(20)?)?,
            bytes,
        })
    }

    /// The id of the type that a program on a tracepoint is for; `None` if there is no such
    /// tracepoint.
    pub(super) fn tracepoint(&self, name: &str) -> Option<u32> {
        let name = format!("btf_trace_{name}");
        self.find(KIND_TYPEDEF, &name).map(|found| found.id)
    }

    /// Where what the programs look at is in the kernel's sockets; `None` if something is missing.
    pub(super) fn socket_offsets(&self) -> Option<SocketOffsets> {
        let common = self.offset("sock", "__sk_common")?;
        let common = |member| common.checked_add(self.offset("sock_common", member)?);
        let tcp = |member| self.offset("tcp_sock", member);
        Some(SocketOffsets {
            cookie: common("skc_cookie")?,
            state: common("skc_state")?,
            flags: common("skc_flags")?,
            peer_port: common("skc_dport")?,
            error: self.offset("sock", "sk_err")?,
            soft_error: self.offset("sock", "sk_err_soft")?,
            round_trip: tcp("srtt_us")?,
            sent_again: tcp("total_retrans")?,
            segments_sent: tcp("segs_out")?,
            bytes_acknowledged: tcp("bytes_acked")?,
            next_received: tcp("rcv_nxt")?,
            bytes_sent: tcp("bytes_sent")?,
            bytes_sent_again: tcp("bytes_retrans")?,
            bytes_received: tcp("bytes_received")?,
        })
    }

    /// How many bytes into a structure a member is: one of its own, or of a structure or union without
    /// a name in it. `None` if there is no such structure or member, or it is a bit field.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        let structure = self.find(KIND_STRUCT, structure)?;
        self.offset_in(structure, member, MAX_NESTING)
    }

    fn offset_in(&self, outer: Type, member: &str, nesting: u32) -> Option<u32> {
        (0..outer.count).find_map(|index| {
            let at = outer.body + index as usize * 12;
            let (name, inner) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?);
            let bits = word(&self.bytes, at + 8)?;
            if !bits.is_multiple_of(8) || outer.has_bit_fields && bits >> 24 != 0 {
                return None;
            }
            if self.is_named(name, member) {
                return Some(bits / 8);
            }
            if name != 0 || nesting == 0 {
                return None;
            }
            let inner = self.types().find(|found| found.id == inner)?;
            if inner.kind != KIND_STRUCT && inner.kind != KIND_UNION {
                return None;
            }
            self.offset_in(inner, member, nesting - 1)?
                .checked_add(bits / 8)
        })
    }

    fn find(&self, kind: u32, name: &str) -> Option<Type> {
        self.types()
            .find(|found| found.kind == kind && self.is_named(found.name, name))
    }

    /// All types, up to the first that cannot be understood.
    fn types(&self) -> impl Iterator<Item = Type> {
        let mut at = self.types.start;
        // 0 is `void`, which is not written down.
        (1..).map_while(move |id| {
            if at >= self.types.end {
                return None;
            }
            let info = word(&self.bytes, at + 4)?;
            let found = Type {
                id,
                name: word(&self.bytes, at)?,
                kind: info >> 24 & 0x1f,
                count: info & 0xffff,
                has_bit_fields: info >> 31 != 0,
                body: at + 12,
            };
            at = found.body + found.body_length();
            Some(found)
        })
    }

    fn is_named(&self, name: u32, expected: &str) -> bool {
        let names = &self.bytes[self.names.clone()];
        let rest = names.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(expected.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl Type {
    fn body_length(self) -> usize {
        let count = self.count as usize;
        match self.kind {
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
            KIND_ARRAY => 12,
            // An integer, a variable, a tag of a declaration.
            1 | KIND_VAR | KIND_DECL_TAG => 4,
            _ => 0,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_tracepoints_of_the_running_kernel_are_found() {
        let types = KernelTypes::running().unwrap();
        assert_eq!(types.offset("sock", "__sk_common"), Some(0));
        let cookie = types.offset("sock_common", "skc_cookie").unwrap();
        assert!(cookie > 0 && cookie.is_multiple_of(8), "{cookie}");
        assert_eq!(types.offset("list_head", "next"), Some(0));
        assert_eq!(types.offset("list_head", "prev"), Some(8));
        assert_eq!(types.offset("list_head", "pre"), None);
        assert_eq!(types.offset("no_such_structure", "next"), None);
        assert!(types.tracepoint("tcp_destroy_sock").is_some());
        assert_eq!(types.tracepoint("tcp_destroy_soc"), None);
        assert_eq!(types.socket_offsets().unwrap().cookie, cookie);
    }

    #[test]
    fn types_that_are_cut_short_are_refused_or_lack_what_is_gone() {
        let whole = fs::read(VMLINUX).unwrap();
        let step = whole.len() / 50;
        for length in (0..24).chain((24..whole.len()).step_by(step)) {
            assert!(KernelTypes::parse(whole[..length].to_vec()).is_none());
        }
        // All of it is there, but the head says otherwise.
        for length in [0_u32, 4, 11, 13, 1 << 12, (1 << 16) + 3] {
            let mut cut = whole.clone();
            cut[12..16].copy_from_slice(&length.to_ne_bytes());
            let cut = KernelTypes::parse(cut).unwrap();
            assert_eq!(cut.offset("no_such_structure", "member"), None);
        }
    }
}
