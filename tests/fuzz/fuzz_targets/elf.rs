//! Libraries of arbitrary bytes: each is read or refused, and no length in one makes the reader look elsewhere.
//!
//! A library of the tests is a good beginning: give a directory with one as an argument.
//!
//! Run as `command` is (see there), with `--bin elf` and without the dictionary.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unfulfilled_lint_expectations,
    reason = "the rooms are the host's; see there"
)]

#[path = "../../../host/src/artifact"]
mod artifact {
    #[path = "elf.rs"]
    pub mod elf;

    pub fn read(bytes: &[u8]) -> Result<app_abi::manifest::Manifest, elf::ElfError> {
        elf::read_from(bytes, |_| false)
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match artifact::read(bytes) {
        Ok(manifest) => {
            assert!(manifest.app_name.len() <= 64);
            let _ = manifest.fits_host();
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    // The same bytes where a whole header would stand.
    const HEAD: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";
    let _ = artifact::read(&[HEAD, bytes].concat());
    let _ = app_abi::manifest::Manifest::from_note_desc(bytes);
});
