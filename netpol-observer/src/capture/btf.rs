//! The part of BTF that capture needs: where a structure's field lies, and the names of an enumeration's values.
//!
//! Format: `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`. Types are walked in place; nothing is assumed of the
//! input, so that a file that is no BTF gives an error.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Nesting of members, arrays and typedefs beyond this is no kernel's.
const MAX_DEPTH: usize = 32;

const KIND_PTR: u8 = 2;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
const KIND_TYPEDEF: u8 = 8;
const KIND_FUNC: u8 = 12;
const KIND_FUNC_PROTO: u8 = 13;
const KIND_ENUM64: u8 = 19;

/// Why BTF could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// Not BTF, or of another byte order or version.
    #[error("not BTF: {0}")]
    Format(&'static str),
    /// It ends before a type or string that it refers to.
    #[error("BTF is cut off or inconsistent at type {0}")]
    Truncated(u32),
    /// A type of a kind newer than this program knows; what follows it cannot be found.
    #[error("BTF type {id} is of kind {kind}, which this version does not know")]
    UnknownKind {
        /// Type number.
        id: u32,
        /// `BTF_KIND_*`
        kind: u8,
    },
    /// No such structure.
    #[error("this kernel has no struct {0} in its BTF")]
    NoStructure(String),
    /// Several structures of one name which place the field differently.
    #[error("this kernel's BTF has several different definitions of struct {0}")]
    Ambiguous(String),
    /// The structure has no such member.
    #[error("this kernel's struct {structure} has no field {path}")]
    NoField {
        /// Structure.
        structure: String,
        /// The path asked for.
        path: String,
    },
    /// The member is there but is not what is expected.
    #[error("field {path} of struct {structure} has {has} bytes, expected {wants}")]
    Size {
        /// Structure.
        structure: String,
        /// Path.
        path: String,
        /// Bytes in this kernel.
        has: u32,
        /// Bytes the program reads.
        wants: u32,
    },
}

/// Place and size of a field, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the start of the structure.
    pub offset: u32,
    /// Size of its type.
    pub size: u32,
}

/// The type information of the kernel, and of its modules on top of it.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    images: Vec<Arc<Image>>,
    /// Of each image the structures, enumerations and typedefs by name.
    named: Vec<Arc<HashMap<Box<str>, Vec<u32>>>>,
}

/// One BTF blob. A module's blob continues the numbering of types and strings of the kernel's.
#[derive(Clone, Debug)]
struct Image {
    data: Vec<u8>,
    strings: std::ops::Range<usize>,
    first_id: u32,
    first_string: u32,
    /// Offset in `data` of each type.
    types: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    vlen: usize,
    kind_flag: bool,
    size_or_type: u32,
    /// Offset in the image's data of what follows the common part.
    tail: usize,
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

impl Image {
    fn parse(data: Vec<u8>, first_id: u32, first_string: u32) -> Result<Self, BtfError> {
        let word = |at| u32_at(&data, at).ok_or(BtfError::Format("shorter than its header"));
        let magic = word(0)? as u16;
        if magic != MAGIC {
            return Err(BtfError::Format("wrong magic number"));
        }
        let header = word(4)? as usize;
        if header < HEADER_LEN {
            return Err(BtfError::Format("header too short"));
        }
        let section = |offset: u32, len: u32| {
            let start = header.checked_add(offset as usize)?;
            let end = start.checked_add(len as usize)?;
            (end <= data.len()).then_some(start..end)
        };
        let types = section(word(8)?, word(12)?).ok_or(BtfError::Format("types reach beyond its end"))?;
        let strings = section(word(16)?, word(20)?).ok_or(BtfError::Format("strings reach beyond its end"))?;
        let mut offsets = Vec::new();
        let mut at = types.start;
        while at < types.end {
            let id = first_id + offsets.len() as u32;
            let t = Type::at(&data, at).ok_or(BtfError::Truncated(id))?;
            let extra = t.extra_len().ok_or(BtfError::UnknownKind { id, kind: t.kind })?;
            offsets.push(at as u32);
            at = t.tail + extra;
        }
        if at != types.end {
            return Err(BtfError::Truncated(first_id + offsets.len() as u32));
        }
        Ok(Image { data, strings, first_id, first_string, types: offsets })
    }
}

impl Type {
    fn at(data: &[u8], at: usize) -> Option<Self> {
        let info = u32_at(data, at + 4)?;
        Some(Type {
            name: u32_at(data, at)?,
            kind: (info >> 24 & 0x1f) as u8,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: u32_at(data, at + 8)?,
            tail: at + 12,
        })
    }

    /// Bytes behind the common part.
    fn extra_len(&self) -> Option<usize> {
        Some(match self.kind {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 4,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            KIND_PTR | 7..=12 | 16 | 18 => 0,
            KIND_ARRAY => 12,
            // members, section variables and 64-bit enumerators
            KIND_STRUCT | KIND_UNION | 15 | KIND_ENUM64 => self.vlen * 12,
            // enumerators and parameters
            KIND_ENUM | KIND_FUNC_PROTO => self.vlen * 8,
            _ => return None,
        })
    }

    /// TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG: another name or quality of `size_or_type`.
    fn is_modifier(&self) -> bool {
        matches!(self.kind, 8..=11 | 18)
    }
}

impl Btf {
    /// Reads the kernel's own BTF.
    ///
    /// # Errors
    /// When `data` is no BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        // Type 0 is void and string 0 is empty.
        Ok(Btf::default().and(Image::parse(data, 1, 0)?))
    }

    /// Adds a module's BTF, as in `/sys/kernel/btf/MODULE`: it continues the numbering of the kernel's own.
    ///
    /// Modules are independent of each other, so that each goes on top of the kernel's BTF alone.
    ///
    /// # Errors
    /// When `data` is no BTF.
    pub fn with_module(&self, data: Vec<u8>) -> Result<Self, BtfError> {
        let base = self.images.first().ok_or(BtfError::Format("no kernel BTF to go with a module's"))?;
        let first_id = base.first_id + base.types.len() as u32;
        let module = Image::parse(data, first_id, base.strings.len() as u32)?;
        let kernel = Btf { images: self.images[..1].to_vec(), named: self.named[..1].to_vec() };
        Ok(kernel.and(module))
    }

    /// Adds an image and notes its names: there are a hundred thousand types, and each look-up would go through all of them.
    fn and(mut self, image: Image) -> Self {
        let ids = image.first_id..image.first_id + image.types.len() as u32;
        self.images.push(Arc::new(image));
        let mut named: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for id in ids {
            if let Some((_, t)) = self.get(id)
                && matches!(t.kind, KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF)
            {
                named.entry(self.name(t.name).into()).or_default().push(id);
            }
        }
        self.named.push(Arc::new(named));
        self
    }

    /// The types of a kind that have this name.
    fn named(&self, kind: u8, name: &str) -> impl Iterator<Item = (u32, &Image, Type)> {
        let ids = self.named.iter().filter_map(move |named| named.get(name)).flatten();
        ids.filter_map(|&id| self.get(id).map(|(image, t)| (id, image, t))).filter(move |(_, _, t)| t.kind == kind)
    }

    fn get(&self, id: u32) -> Option<(&Image, Type)> {
        let image = self.images.iter().rev().find(|image| id >= image.first_id)?;
        let at = *image.types.get((id - image.first_id) as usize)?;
        Some((image, Type::at(&image.data, at as usize)?))
    }

    fn name(&self, offset: u32) -> &str {
        let find = || {
            let image = self.images.iter().rev().find(|image| offset >= image.first_string)?;
            let strings = image.data.get(image.strings.clone())?;
            let rest = strings.get((offset - image.first_string) as usize..)?;
            let len = rest.iter().position(|&byte| byte == 0)?;
            std::str::from_utf8(&rest[..len]).ok()
        };
        find().unwrap_or("")
    }

    /// Follows typedefs, qualifiers and arrays to what they stand for.
    fn strip(&self, mut id: u32, arrays: bool) -> Option<(u32, &Image, Type)> {
        for _ in 0..MAX_DEPTH {
            let (image, t) = self.get(id)?;
            if t.is_modifier() {
                id = t.size_or_type;
            } else if arrays && t.kind == KIND_ARRAY {
                id = u32_at(&image.data, t.tail)?;
            } else {
                return Some((id, image, t));
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: usize) -> Option<u32> {
        let (_, image, t) = self.strip(id, false)?;
        match t.kind {
            KIND_PTR => Some(8),
            KIND_ARRAY if depth < MAX_DEPTH => {
                let element = self.size_of(u32_at(&image.data, t.tail)?, depth + 1)?;
                element.checked_mul(u32_at(&image.data, t.tail + 8)?)
            }
            1 | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | 16 => Some(t.size_or_type),
            _ => None,
        }
    }

    /// Offset in bits and type of a member, searching anonymous structures and unions too.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let (_, image, t) = self.strip(id, true)?;
        if !matches!(t.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for i in 0..t.vlen {
            let at = t.tail + i * 12;
            let (member_name, member_type, offset) = (u32_at(&image.data, at)?, u32_at(&image.data, at + 4)?, u32_at(&image.data, at + 8)?);
            // With kind_flag the high byte is a bit field's width.
            let bits = if t.kind_flag { offset & 0x00ff_ffff } else { offset };
            if self.name(member_name) == name {
                return Some((bits, member_type));
            }
            if self.name(member_name).is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)
            {
                return Some((bits.checked_add(inner)?, found));
            }
        }
        None
    }

    fn place_in(&self, structure: u32, path: &str) -> Option<Place> {
        let mut bits = 0u32;
        let mut id = structure;
        for name in path.split('.') {
            let (offset, member) = self.member(id, name, 0)?;
            bits = bits.checked_add(offset)?;
            id = member;
        }
        bits.is_multiple_of(8).then_some(Place { offset: bits / 8, size: self.size_of(id, 0)? })
    }

    /// Where `path` (members separated by dots; an array stands for its first element) lies in `struct structure`.
    ///
    /// # Errors
    /// When there is no such structure or member, or several definitions of the structure disagree.
    pub fn place(&self, structure: &str, path: &str) -> Result<Place, BtfError> {
        let mut found: Option<Place> = None;
        let mut exists = false;
        for (id, _, _) in self.named(KIND_STRUCT, structure) {
            exists = true;
            let place = self.place_in(id, path);
            if let (Some(place), Some(before)) = (place, found)
                && place != before
            {
                return Err(BtfError::Ambiguous(structure.to_owned()));
            }
            found = found.or(place);
        }
        match found {
            Some(place) => Ok(place),
            None if exists => Err(BtfError::NoField { structure: structure.to_owned(), path: path.to_owned() }),
            None => Err(BtfError::NoStructure(structure.to_owned())),
        }
    }

    /// Size of `struct name` in bytes; `None` when there is none, or several that differ.
    pub fn structure_size(&self, name: &str) -> Option<u32> {
        let mut sizes = self.named(KIND_STRUCT, name).map(|(_, _, t)| t.size_or_type);
        let size = sizes.next()?;
        sizes.all(|other| other == size).then_some(size)
    }

    /// Whether the kernel has a function of this name. Goes through all types.
    pub fn has_function(&self, name: &str) -> bool {
        self.images
            .iter()
            .flat_map(|image| image.first_id..image.first_id + image.types.len() as u32)
            .any(|id| self.get(id).is_some_and(|(_, t)| t.kind == KIND_FUNC && self.name(t.name) == name))
    }

    /// Names of the values of all enumerations called `name`, by value (an enumeration that exists twice is merged).
    pub fn enumerators(&self, name: &str) -> BTreeMap<u32, String> {
        let mut values = BTreeMap::new();
        for (_, image, t) in self.named(KIND_ENUM, name) {
            for i in 0..t.vlen {
                let at = t.tail + i * 8;
                if let (Some(name), Some(value)) = (u32_at(&image.data, at), u32_at(&image.data, at + 4)) {
                    values.entry(value).or_insert_with(|| self.name(name).to_owned());
                }
            }
        }
        values
    }

    /// How many arguments the tracepoint `name` hands to a program; `None` where BTF does not have it.
    ///
    /// Each tracepoint has `typedef void (*btf_trace_NAME)(void *, …)` (`include/trace/bpf_probe.h`), whose first parameter is
    /// the probe's own.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let (id, _, _) = self.named(KIND_TYPEDEF, &format!("btf_trace_{name}")).next()?;
        let (_, _, pointer) = self.strip(id, false)?;
        if pointer.kind != KIND_PTR {
            return None;
        }
        let (_, _, prototype) = self.strip(pointer.size_or_type, false)?;
        if prototype.kind != KIND_FUNC_PROTO { None } else { prototype.vlen.checked_sub(1) }
    }
}

#[cfg(test)]
mod tests;
