use super::*;
use proptest::prelude::*;

/// The description of a note, written out field by field as the compiler lays it out.
fn desc_bytes(note: &Note) -> Vec<u8> {
    let desc = &note.desc;
    let mut bytes = Vec::new();
    let numbers = [
        &[
            desc.length,
            desc.cookie,
            desc.magic_low,
            desc.magic_high,
            desc.abi_minor,
            desc.host_minor_needed,
            desc.flags,
        ][..],
        &desc.app_abi,
        &desc.abi_stable,
        &[desc.async_ffi],
    ];
    for number in numbers.concat() {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(desc.app_name);
    bytes.extend(desc.app_version);
    bytes.extend(desc.rustc);
    bytes
}

#[test]
fn a_note_reads_back_as_it_was_written() {
    let note = Note::new(7, "shop", "1.2.3");
    assert_eq!(size_of::<Note>(), 12 + 8 + DESC_LEN, "no padding anywhere");
    assert_eq!((note.name_len, note.kind), (8, NOTE_TYPE));
    assert_eq!(&note.name, b"app-abi\0");
    let manifest = Manifest::from_note_desc(&desc_bytes(&note)).unwrap();
    assert_eq!((manifest.magic.abi(), manifest.magic.epoch()), (ABI, 7));
    assert_eq!((&*manifest.app_name, &*manifest.app_version), ("shop", "1.2.3"));
    assert_eq!(manifest.abi_stable, Version { major: 0, minor: 11, patch: 3 });
    assert_eq!(manifest.app_abi.to_string(), env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest.async_ffi, async_ffi::ABI_VERSION);
    assert!(manifest.rustc.starts_with("rustc "), "{}", manifest.rustc);
}

#[test]
fn fields_appended_by_a_later_version_are_skipped() {
    let mut bytes = desc_bytes(&Note::new(1, "shop", "1.2.3"));
    bytes.extend([1, 2, 3, 4]);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    assert_eq!(Manifest::from_note_desc(&bytes).unwrap().app_name, "shop");
}

#[test]
fn each_error_names_its_field() {
    let good = desc_bytes(&Note::new(1, "shop", "1.2.3"));
    let error = |bytes: &[u8]| Manifest::from_note_desc(bytes).unwrap_err();
    assert_eq!(error(&[1, 2]), ManifestError::Short { field: "length" });
    assert_eq!(error(&good[..6]), ManifestError::Short { field: "cookie" });
    assert_eq!(error(&good[..100]), ManifestError::Length { found: 216, size: 100 });
    let mut cookie = good.clone();
    cookie[4] ^= 1;
    assert!(matches!(error(&cookie), ManifestError::Cookie { .. }));
    let mut short = good.clone();
    short[..4].copy_from_slice(&8_u32.to_ne_bytes());
    assert_eq!(error(&short), ManifestError::Length { found: 8, size: 216 });
    let mut text = good;
    text[56] = 0xff;
    assert_eq!(error(&text), ManifestError::Text { field: "app_name" });
}

#[test]
fn before_1_0_another_minor_is_incompatible() {
    let version = |text| Version::parse(text);
    assert!(version("0.11.3").is_compatible(version("0.11.9")));
    assert!(!version("0.11.3").is_compatible(version("0.12.0")));
    assert!(version("1.2.0").is_compatible(version("1.9.1-rc.1")));
    assert!(!version("1.2.0").is_compatible(version("2.2.0")));
}

#[test]
fn a_misfit_names_its_field() {
    let good = Manifest::from_note_desc(&desc_bytes(&Note::new(1, "shop", "1.2.3"))).unwrap();
    assert_eq!(good.fits_host(), Ok(()));
    let misfit = |change: fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.fits_host().unwrap_err().to_string()
    };
    assert_eq!(
        misfit(|m| m.magic = Magic(0x0000_0009_0000_0001)),
        "magic 00000009_00000001: built for ABI 9, this host has ABI 1"
    );
    assert!(misfit(|m| m.host_minor_needed = 99).starts_with("`host_minor_needed` is 99"));
    assert!(misfit(|m| m.app_abi.major = 9).starts_with("`app_abi` is version 9."));
    assert!(misfit(|m| m.abi_stable.minor = 12).starts_with("`abi_stable` is version 0.12."));
    assert!(misfit(|m| m.async_ffi = 9).starts_with("`async_ffi` is ABI version 9"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::from_note_desc(&bytes);
    }
}
