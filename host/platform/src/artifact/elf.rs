//! What an ELF file says without being run: whether it is whole, whom it is for, its manifest.
//!
//! Sources: `elf(5)`, and `docs/design/abi.md` on what `dlopen` does with a file that isn't whole (SIGBUS).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use app_abi::Magic;
use app_abi::manifest::{Manifest, ManifestError, NOTE_NAME};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache, ReadRef, elf};

/// The symbol that repeats the magic.
const MAGIC_SYMBOL: &[u8] = b"APP_ABI_MAGIC";

/// A file that can't be loaded, and why.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("it is no ELF file for 64-bit machines")]
    NoElf(#[source] object::read::Error),
    #[error("it is for another architecture: machine {found}, expected {expected}")]
    Architecture { found: u16, expected: u16 },
    #[error("it is {0}, no shared library; build it with crate-type \"cdylib\"")]
    NoLibrary(&'static str),
    #[error(
        "it has no section headers, by which it is seen whether it is whole; leave them in: `strip` does, and `sstrip` and \
         `--strip-section-headers` don't"
    )]
    NoSections,
    #[error(
        "it was built with {name}, whose run-time must be in a program from its start and can't come with a library; build \
         it without ({option}), or start app-host itself with that run-time preloaded (LD_PRELOAD)"
    )]
    Sanitizer { name: &'static str, option: &'static str },
    #[error(
        "it has {0} app-abi manifests, and one library is one app; call one of app_abi's export macros, once, and make \
             what another crate exports a plain library of it"
    )]
    ManyApps(usize),
    #[error("it is truncated: {what} would end at byte {end}, and the file has {size}")]
    Truncated { what: &'static str, end: u64, size: u64 },
    #[error("its headers are damaged")]
    Damaged(#[source] object::read::Error),
    #[error("it has no app-abi manifest; export an app with app_abi::export_app!")]
    NoManifest,
    #[error("its app-abi manifest can't be read")]
    Manifest(#[from] ManifestError),
    #[error("it doesn't export APP_ABI_MAGIC")]
    NoMagic,
    #[error("it contradicts itself: APP_ABI_MAGIC is {symbol}, and its manifest says {manifest}")]
    TwoMagics { symbol: Magic, manifest: Magic },
}

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

type Header = elf::FileHeader64<Endianness>;

/// How many bytes the first header has.
const HEADER_BYTES: usize = size_of::<Header>();

/// Whether `file` looks like a library that is still being written: the end that it speaks of isn't
/// there yet, or its bytes aren't, because it was given its size before them. What can't become a
/// library by growing isn't partial.
pub fn is_partial(file: &File) -> io::Result<bool> {
    let mut head = [0; HEADER_BYTES];
    let mut read = 0;
    while read < head.len() {
        match file.read_at(&mut head[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    let head = &head[..read];
    let magic = &elf::ELFMAG[..read.min(elf::ELFMAG.len())];
    if !head.starts_with(magic) {
        return Ok(head.iter().all(|byte| *byte == 0));
    }
    if read < HEADER_BYTES {
        return Ok(true);
    }
    let cache = ReadCache::new(file);
    let data = &cache;
    let whole = Header::parse(data)
        .and_then(|header| Ok((header, header.endian()?)))
        .map_err(ElfError::NoElf)
        .and_then(|(header, endian)| check_complete(header, endian, data));
    Ok(matches!(whole, Err(ElfError::Truncated { .. })))
}

/// Whether this process has a symbol of this name.
pub type HasSymbol = fn(&str) -> bool;

/// Checks that `file` is a whole library for this machine, and for a process like this one, and returns its manifest.
pub fn read(file: &File, has_symbol: HasSymbol) -> Result<Manifest, ElfError> {
    read_from(&ReadCache::new(file), has_symbol)
}

/// As [`read()`], from whatever holds the bytes.
pub fn read_from<'data, R: ReadRef<'data>>(data: R, has_symbol: HasSymbol) -> Result<Manifest, ElfError> {
    let header = Header::parse(data).map_err(ElfError::NoElf)?;
    let endian = header.endian().map_err(ElfError::NoElf)?;
    let machine = header.e_machine(endian);
    if machine != MACHINE {
        return Err(ElfError::Architecture { found: machine.0, expected: MACHINE.0 });
    }
    check_kind(header, endian, data)?;
    check_complete(header, endian, data)?;
    if header.e_shoff(endian) == 0 {
        return Err(ElfError::NoSections);
    }
    check_sanitizers(header, endian, data, has_symbol)?;
    let manifest = find_manifest(header, endian, data)?;
    let symbol = find_magic(header, endian, data)?;
    if symbol != manifest.magic {
        return Err(ElfError::TwoMagics { symbol, manifest: manifest.magic });
    }
    Ok(manifest)
}

/// The section headers come last in what linkers write, and the loader maps what `PT_LOAD` names: a
/// file that holds the ends of both was copied whole.
fn check_complete<'data, R: ReadRef<'data>>(header: &Header, endian: Endianness, data: R) -> Result<(), ElfError> {
    let size = data.len().map_err(|()| ElfError::Truncated { what: "the file", end: 0, size: 0 })?;
    let within = |what, start: u64, length: u64| match start.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        end => Err(ElfError::Truncated { what, end: end.unwrap_or(u64::MAX), size }),
    };
    let table = |count: u16, each: u16| u64::from(count) * u64::from(each);
    within("the program headers", header.e_phoff(endian), table(header.e_phnum(endian), header.e_phentsize(endian)))?;
    within("the section headers", header.e_shoff(endian), table(header.e_shnum(endian), header.e_shentsize(endian)))?;
    for segment in header.program_headers(endian, data).map_err(ElfError::Damaged)? {
        if segment.p_type(endian) == elf::PT_LOAD {
            within("a loaded segment", segment.p_offset(endian), segment.p_filesz(endian))?;
        }
    }
    for section in header.section_headers(endian, data).map_err(ElfError::Damaged)? {
        if let Some((start, length)) = section.file_range(endian) {
            within("a section", start, length)?;
        }
    }
    Ok(())
}

/// Checks that it is a library. A program that may lie anywhere is the same type of file, and `ld.so(8)` refuses it.
fn check_kind<'data, R: ReadRef<'data>>(header: &Header, endian: Endianness, data: R) -> Result<(), ElfError> {
    match header.e_type(endian) {
        elf::ET_DYN => {}
        elf::ET_EXEC => return Err(ElfError::NoLibrary("an executable")),
        elf::ET_REL => return Err(ElfError::NoLibrary("an object file that isn't linked yet")),
        elf::ET_CORE => return Err(ElfError::NoLibrary("a core dump")),
        _ => return Err(ElfError::NoLibrary("an ELF file of another type")),
    }
    // One that is cut off is said to be that.
    let Ok(segments) = header.program_headers(endian, data) else { return Ok(()) };
    for segment in segments {
        let Ok(Some(entries)) = segment.dynamic(endian, data) else { continue };
        let is_pie = |entry: &elf::Dyn64<Endianness>| {
            entry.d_tag(endian) == elf::DT_FLAGS_1 && entry.d_val(endian) & elf::DF_1_PIE.0 != 0
        };
        if entries.iter().any(is_pie) {
            return Err(ElfError::NoLibrary("an executable"));
        }
    }
    Ok(())
}

/// The symbols by which code reaches the run-time of a sanitizer that replaces the allocator, or must see every access:
/// none of them starts in a process that runs already, and theirs ends that process.
const SANITIZERS: [(&str, &str, &str); 5] = [
    ("__asan_init", "AddressSanitizer", "-Z sanitizer=address, -fsanitize=address"),
    ("__hwasan_init", "HWAddressSanitizer", "-Z sanitizer=hwaddress, -fsanitize=hwaddress"),
    ("__tsan_init", "ThreadSanitizer", "-Z sanitizer=thread, -fsanitize=thread"),
    ("__msan_init", "MemorySanitizer", "-Z sanitizer=memory, -fsanitize=memory"),
    ("__dfsan_init", "DataFlowSanitizer", "-Z sanitizer=dataflow, -fsanitize=dataflow"),
];

fn check_sanitizers<'data, R: ReadRef<'data>>(
    header: &Header,
    endian: Endianness,
    data: R,
    has_symbol: HasSymbol,
) -> Result<(), ElfError> {
    let sections = header.sections(endian, data).map_err(ElfError::Damaged)?;
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM).map_err(ElfError::Damaged)?;
    for symbol in symbols.iter().filter(|symbol| symbol.is_undefined(endian)) {
        let Ok(found) = symbol.name(endian, symbols.strings()) else { continue };
        let known = SANITIZERS.into_iter().find(|(init, ..)| init.as_bytes() == found);
        // Children have what this process was started with.
        if let Some((init, name, option)) = known
            && !has_symbol(init)
        {
            return Err(ElfError::Sanitizer { name, option });
        }
    }
    Ok(())
}

fn find_manifest<'data, R: ReadRef<'data>>(header: &Header, endian: Endianness, data: R) -> Result<Manifest, ElfError> {
    let mut found: Vec<&[u8]> = Vec::new();
    for segment in header.program_headers(endian, data).map_err(ElfError::Damaged)? {
        let Some(mut notes) = segment.notes(endian, data).map_err(ElfError::Damaged)? else { continue };
        while let Some(note) = notes.next().map_err(ElfError::Damaged)? {
            // Two segments may hold the same note.
            if note.name() == NOTE_NAME.as_bytes() && !found.iter().any(|other| other.as_ptr() == note.desc().as_ptr())
            {
                found.push(note.desc());
            }
        }
    }
    match found.as_slice() {
        [] => Err(ElfError::NoManifest),
        [one] => Ok(Manifest::from_note_desc(one)?),
        many => Err(ElfError::ManyApps(many.len())),
    }
}

/// Reads the value of the exported symbol where the loader would find it.
fn find_magic<'data, R: ReadRef<'data>>(header: &Header, endian: Endianness, data: R) -> Result<Magic, ElfError> {
    let sections = header.sections(endian, data).map_err(ElfError::Damaged)?;
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM).map_err(ElfError::Damaged)?;
    let symbol = symbols
        .iter()
        .find(|symbol| {
            !symbol.is_undefined(endian)
                && symbol.name(endian, symbols.strings()).is_ok_and(|name| name == MAGIC_SYMBOL)
        })
        .ok_or(ElfError::NoMagic)?;
    let address = symbol.st_value(endian);
    for segment in header.program_headers(endian, data).map_err(ElfError::Damaged)? {
        if segment.p_type(endian) == elf::PT_LOAD
            && let Ok(Some(bytes)) = segment.data_range(endian, data, address, 8)
        {
            let bytes: [u8; 8] = bytes.try_into().map_err(|_| ElfError::NoMagic)?;
            return Ok(Magic(u64::from_ne_bytes(bytes)));
        }
    }
    Err(ElfError::NoMagic)
}
