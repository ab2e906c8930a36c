//! Makes byte arrays readable in `bpftool map dump`.
//!
//! bpftool prints an array as a string if its elements are integers of one byte that BTF, the
//! kernel's type format, marks as characters. Rust has no such type: the maps keep names in
//! arrays of `i8`, which rustc describes as signed numbers. Here they become characters; a
//! text is an `i8` array and nothing else in the maps is.

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

const MAGIC: u16 = 0xeb9f;
/// Bytes in the head of every type: name, info, size or type.
const HEAD: usize = 12;
/// Of an integer's word that follows the head.
const ENCODING: u32 = 0x0f << 24;
const CHAR: u32 = 2 << 24;

/// Marks every `i8` in the BTF of an object file as a character; returns how many there were.
///
/// # Errors
///
/// When the object is not an ELF file with well-formed BTF.
pub fn mark_in_object(elf: &mut [u8]) -> Result<usize> {
    let (start, length) = {
        let file = object::File::parse(&*elf).context("the object is not an ELF file")?;
        let section = file
            .section_by_name(".BTF")
            .context("the object has no BTF (the linker needs `--btf`)")?;
        section.file_range().context("the BTF section is empty")?
    };
    let start = usize::try_from(start)?;
    let end = start + usize::try_from(length)?;
    let btf = elf.get_mut(start..end).context("the BTF is cut off")?;
    mark(btf).context("malformed BTF")
}

/// Marks every `i8` in a BTF section as a character; returns how many there were.
fn mark(btf: &mut [u8]) -> Result<usize> {
    if u16::from_le_bytes([byte(btf, 0)?, byte(btf, 1)?]) != MAGIC {
        bail!("bad magic (big-endian?)");
    }
    let header = word(btf, 4)?;
    let mut at = header + word(btf, 8)?;
    let end = at + word(btf, 12)?;
    let strings = header + word(btf, 16)?;
    if end > btf.len() || strings > btf.len() {
        bail!("the header points beyond the end");
    }
    let mut marked = 0;
    while at < end {
        let info = word(btf, at + 4)?;
        let (kind, members) = (info >> 24 & 0x1f, info & 0xffff);
        let size = word(btf, at + 8)?;
        if kind == KIND_INT && size == 1 && name(btf, strings + word(btf, at)?)? == b"i8" {
            let data = at + HEAD;
            let value = u32::try_from(word(btf, data)?)? & !ENCODING | CHAR;
            btf[data..data + 4].copy_from_slice(&value.to_le_bytes());
            marked += 1;
        }
        at += HEAD + tail(kind, members)?;
    }
    if at != end {
        bail!("the last type is cut off");
    }
    Ok(marked)
}

const KIND_INT: usize = 1;

/// How many bytes follow the head of a type (include/uapi/linux/btf.h).
fn tail(kind: usize, members: usize) -> Result<usize> {
    Ok(match kind {
        // int; variable, declaration tag
        KIND_INT | 14 | 17 => 4,
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // array
        3 => 12,
        // struct, union, section, enum of 64 bits
        4 | 5 | 15 | 19 => 12 * members,
        // enum, function prototype
        6 | 13 => 8 * members,
        _ => bail!("unknown kind {kind} of type"),
    })
}

fn byte(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().context("cut off")
}

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let word = bytes.get(at..at + 4).context("cut off")?;
    let word = word.try_into().map(u32::from_le_bytes)?;
    Ok(usize::try_from(word)?)
}

fn name(bytes: &[u8], at: usize) -> Result<&[u8]> {
    let rest = bytes.get(at..).context("a name beyond the end")?;
    let end = rest.iter().position(|byte| *byte == 0);
    Ok(&rest[..end.context("a name without an end")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: u32 = 1 << 24;

    /// A BTF section of these types, each a list of words, and these names.
    fn section(types: &[&[u32]], names: &[&str]) -> Vec<u8> {
        let types: Vec<u8> = types
            .concat()
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let mut strings = vec![0];
        for name in names {
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut btf = MAGIC.to_le_bytes().to_vec();
        btf.extend([1, 0]);
        for word in [24, 0, length(&types), length(&types), length(&strings)] {
            btf.extend(u32::to_le_bytes(word));
        }
        btf.extend(types);
        btf.extend(strings);
        btf
    }

    fn info(kind: u32, members: u32) -> u32 {
        kind << 24 | members
    }

    #[test]
    fn signed_bytes_become_characters_and_nothing_else_changes() {
        // Offsets of names: "i8" 1, "u8" 4, "i16" 7.
        let names = ["i8", "u8", "i16"];
        let types = |encoding| {
            vec![
                vec![1, info(1, 0), 1, encoding | 8], // i8
                vec![4, info(1, 0), 1, 8],            // u8
                vec![7, info(1, 0), 2, SIGNED | 16],  // i16
                vec![1, info(8, 0), 1],               // a typedef that is called i8
            ]
        };
        let build = |encoding| {
            let types = types(encoding);
            let types: Vec<&[u32]> = types.iter().map(Vec::as_slice).collect();
            section(&types, &names)
        };
        let mut btf = build(SIGNED);
        assert_eq!(mark(&mut btf).unwrap(), 1);
        assert_eq!(btf, build(CHAR));
        assert_eq!(mark(&mut btf).unwrap(), 1, "twice does no harm");
        assert_eq!(btf, build(CHAR));
    }

    #[test]
    fn every_kind_of_type_is_stepped_over() {
        let member = [0, 1, 0];
        let mut types: Vec<Vec<u32>> = Vec::new();
        for kind in 1..=19 {
            let mut words = vec![0, info(kind, 2), 4];
            match kind {
                1 | 14 | 17 => words.push(32),
                3 => words.extend(member),
                4 | 5 | 15 | 19 => words.extend([member, member].concat()),
                6 | 13 => words.extend([0, 1, 0, 1]),
                _ => {}
            }
            types.push(words);
        }
        types.push(vec![1, info(1, 0), 1, SIGNED | 8]);
        let types: Vec<&[u32]> = types.iter().map(Vec::as_slice).collect();
        let mut btf = section(&types, &["i8"]);
        assert_eq!(mark(&mut btf).unwrap(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        let integer: &[u32] = &[1, info(1, 0), 1, SIGNED | 8];
        let whole = section(&[integer], &["i8"]);
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            assert!(mark(&mut cut).is_err(), "cut off at {length}");
        }
        let mut unknown = section(&[&[1, info(20, 0), 1]], &["i8"]);
        let error = mark(&mut unknown).unwrap_err().to_string();
        assert!(error.contains("unknown kind 20"), "{error}");
        let mut nameless = section(&[&[99, info(1, 0), 1, 8]], &["i8"]);
        assert!(mark(&mut nameless).is_err());
        let error = mark_in_object(&mut b"\x7fELF".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "the object is not an ELF file");
    }
}
