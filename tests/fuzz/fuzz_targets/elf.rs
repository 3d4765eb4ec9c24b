//! Libraries of arbitrary bytes: each is read or refused, and no length in one makes the reader look elsewhere.
//!
//! A library of the tests is a good beginning: give a directory with one as an argument.
//!
//! Run as `command` is (see there), with `--bin elf` and without the dictionary.
#![no_main]

use app_abi::manifest::Manifest;
use app_host_platform::artifact::elf;

fn read(bytes: &[u8]) -> Result<Manifest, elf::ElfError> {
    elf::read_from(bytes, |_| false)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match read(bytes) {
        Ok(manifest) => {
            assert!(manifest.app_name.len() <= 64);
            let _ = manifest.fits_host();
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    // The same bytes where a whole header would stand.
    const HEAD: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";
    let _ = read(&[HEAD, bytes].concat());
    let _ = Manifest::from_note_desc(bytes);
});
