//! A program in its ELF object, taken apart at its calls and atomic operations.
//!
//! Such an instruction can be replaced by a jump to others behind the program's end. These end the program there,
//! or report that they were reached. The verifier refuses instructions that nothing leads to, so each of them goes on
//! with the original if the frame pointer is null, which only the processor knows that it never is.

use std::collections::BTreeMap;

use object::read::elf::{FileHeader, Rel as _, SectionHeader as _};
use object::{Endianness, elf};

/// Length of an instruction (`struct bpf_insn`).
const LENGTH: usize = 8;

/// The helpers that the programs call (`enum bpf_func_id`).
const MAP_LOOKUP: i32 = 1;
const SET_RETVAL: i32 = 187;

/// What a report adds to the number of a step, so that it is no error that connect() has.
const REPORT: i32 = 1000;

/// An instruction of a program.
type Instruction = [u8; LENGTH];

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [code, registers, o0, o1, i0, i1, i2, i3]
}

const fn jump(offset: i16) -> Instruction {
    instruction(0x05, 0, offset, 0)
}

/// `if r10 == 0 goto offset`
const fn jump_if_never(offset: i16) -> Instruction {
    instruction(0x15, 10, offset, 0)
}

const fn move_value(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, value)
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0);

/// A call or an atomic operation.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Its number among the program's instructions.
    pub(crate) at: usize,
    /// What it does.
    pub(crate) what: String,
}

/// What becomes of a step.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// The program allows the call and ends before it.
    End,
    /// connect() fails with an error that [`reported`] knows.
    Report,
}

/// One program of an object.
pub(crate) struct Code<'a> {
    object: &'a [u8],
    /// Where its section begins in the object.
    begin: usize,
    length: usize,
    /// Where the section's place and size are, and the size of the symbol.
    place_at: usize,
    size_at: usize,
    symbol_size_at: usize,
    /// Its calls and atomic operations.
    pub(crate) steps: Vec<Step>,
}

impl<'a> Code<'a> {
    /// Finds a program by its section and symbol.
    pub(crate) fn find(object: &'a [u8], section: &str, symbol: &str) -> object::Result<Self> {
        let header = elf::FileHeader64::<Endianness>::parse(object)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, object)?;
        let (index, own) = sections
            .section_by_name(endian, section.as_bytes())
            .expect("a section of the program");
        let symbols = sections.symbols(endian, object, elf::SHT_SYMTAB)?;
        let symbol_index = symbols
            .enumerate()
            .find(|(_, it)| {
                symbols
                    .symbol_name(endian, it)
                    .is_ok_and(|name| name == symbol.as_bytes())
            })
            .map(|(index, _)| index.0)
            .expect("a symbol of the program");
        let symbol_table = sections.section(symbols.section())?;
        // Names of what instructions refer to, by their place in the section.
        let mut references = BTreeMap::new();
        for other in sections.iter() {
            let Some((relocations, _)) = other.rel(endian, object)? else {
                continue;
            };
            if other.info_link(endian) != index {
                continue;
            }
            for relocation in relocations {
                let Some(target) = relocation.symbol(endian) else {
                    continue;
                };
                let target = symbols.symbol(target)?;
                let name = symbols.symbol_name(endian, target)?;
                let place = relocation.r_offset.get(endian) as usize / LENGTH;
                references.insert(place, String::from_utf8_lossy(name).into_owned());
            }
        }
        let header_at = header.e_shoff.get(endian) as usize + index.0 * size_of_val(own);
        let begin = own.sh_offset.get(endian) as usize;
        let length = own.sh_size.get(endian) as usize;
        let symbol_at = symbol_table.sh_offset.get(endian) as usize
            + symbol_index * size_of::<elf::Sym64<Endianness>>();
        Ok(Self {
            object,
            begin,
            length,
            // Of the structures in elf(5).
            place_at: header_at + 24,
            size_at: header_at + 32,
            symbol_size_at: symbol_at + 16,
            steps: steps(&object[begin..begin + length], &references),
        })
    }

    /// The object with some steps changed.
    pub(crate) fn changed(&self, changes: &[(&Step, Change)]) -> Vec<u8> {
        let mut code = self.object[self.begin..self.begin + self.length].to_vec();
        for (step, change) in changes {
            let at = step.at * LENGTH;
            let original: Instruction = code[at..at + LENGTH].try_into().expect("an instruction");
            let distance = |from: usize, to: usize| {
                i16::try_from(to as isize - from as isize - 1).expect("a program that is not long")
            };
            let new = code.len() / LENGTH;
            code[at..at + LENGTH].copy_from_slice(&jump(distance(step.at, new)));
            let end: &[Instruction] = match change {
                Change::End => &[move_value(0, 1), EXIT],
                Change::Report => &[
                    move_value(1, -(REPORT + step.at as i32)),
                    instruction(0x85, 0, 0, SET_RETVAL),
                    move_value(0, 0),
                    EXIT,
                ],
            };
            code.extend(jump_if_never(end.len() as i16));
            code.extend(end.iter().flatten());
            code.extend(original);
            let last = code.len() / LENGTH;
            code.extend(jump(distance(last, step.at + 1)));
        }
        let mut object = self.object.to_vec();
        // Sections begin at multiples of 8.
        object.resize(object.len().next_multiple_of(LENGTH), 0);
        let mut store = |at: usize, value: usize| {
            object[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        };
        store(self.place_at, self.object.len().next_multiple_of(LENGTH));
        store(self.size_at, code.len());
        store(self.symbol_size_at, code.len());
        object.extend(code);
        object
    }
}

/// The step that an error of connect() reports.
pub(crate) fn reported(error: i32) -> Option<usize> {
    usize::try_from(error.checked_sub(REPORT)?).ok()
}

/// The calls and atomic operations of a program.
fn steps(code: &[u8], references: &BTreeMap<usize, String>) -> Vec<Step> {
    const LOAD_LONG_IMMEDIATE: u8 = 0x18;
    const CALL: u8 = 0x85;
    const ATOMIC: u8 = 0xdb;
    let mut steps = Vec::new();
    let mut subject = "";
    let mut is_second_half = false;
    for (at, bytes) in code.chunks_exact(LENGTH).enumerate() {
        if is_second_half {
            is_second_half = false;
            continue;
        }
        let immediate = i32::from_le_bytes(*bytes.last_chunk().expect("four bytes"));
        let what = match bytes[0] {
            LOAD_LONG_IMMEDIATE => {
                is_second_half = true;
                subject = references.get(&at).map_or("", String::as_str);
                continue;
            }
            // Of another function, and none of the kernel's.
            CALL if bytes[1] >> 4 != 0 => continue,
            CALL => match immediate {
                MAP_LOOKUP => format!("lookup in {subject}"),
                46 => "cookie of the socket".to_owned(),
                107 => format!("socket storage {subject}"),
                118 => "ticks of the kernel".to_owned(),
                123 => "cgroup of the client".to_owned(),
                number => format!("helper {number}"),
            },
            ATOMIC => match immediate {
                0xf1 => format!("compare and exchange in {subject}"),
                immediate if immediate & 1 == 0 => format!("add in {subject}"),
                _ => format!("add and fetch in {subject}"),
            },
            _ => continue,
        };
        steps.push(Step { at, what });
    }
    steps
}
