//! What is refused before the app is called.

use super::*;

/// One table in several forms.
#[expect(
    dead_code,
    clippy::cast_ptr_alignment,
    clippy::expl_impl_clone_on_copy,
    clippy::trivially_copy_pass_by_ref,
    reason = "derived code, and only the layout is looked at"
)]
mod tables {
    pub(super) mod old {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u32),
        }
    }

    pub(super) mod new {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u32),
            pub(in super::super) second: extern "C" fn(),
        }
    }

    pub(super) mod other {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = TableRef)))]
        #[sabi(missing_field(panic))]
        pub(in super::super) struct Table {
            #[sabi(last_prefix_field)]
            pub(in super::super) first: extern "C" fn(count: u64),
        }
    }
}

#[test]
fn a_table_may_grow_and_a_refusal_names_the_field() {
    let (old, new, other) =
        (tables::old::TableRef::LAYOUT, tables::new::TableRef::LAYOUT, tables::other::TableRef::LAYOUT);
    assert_eq!(layout::compare(old, new), Ok(()), "an old app runs on a new host");
    let refusal = layout::compare(new, old).unwrap_err();
    assert!(refusal.contains("field `second` is missing"), "{refusal}");
    let refusal = layout::compare(other, old).unwrap_err();
    assert!(refusal.contains("field `first`") && refusal.contains("u64"), "{refusal}");
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
}

#[test]
fn a_file_that_is_no_library_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libapp.so");
    std::fs::write(&path, "not a library").unwrap();
    let error = open(&path, &path, Magic(app_abi::magic(1))).err().unwrap();
    assert!(!error.is_incompatibility());
    assert_eq!(error.to_string(), format!("the library {} is refused", path.display()));
    let reason = error.source.to_string();
    assert!(reason.starts_with("the dynamic linker cannot load it: "), "{reason}");
}

#[test]
fn a_library_that_is_not_found_beside_the_copy_is_said_to_be_looked_for_there() {
    let directory = tempfile::tempdir().unwrap();
    let reason = "libneighbour.so: cannot open shared object file: No such file or directory";
    for (runpath, is_said) in [("/opt/lib", false), ("$ORIGIN/../lib", true), ("${ORIGIN}", true)] {
        let path = directory.path().join("copy");
        std::fs::write(&path, format!("\x7fELF…\0{runpath}\0…")).unwrap();
        let text = super::not_opened(reason, &path, Path::new("app.so")).to_string();
        assert_eq!(text.contains("where the version's copy lies"), is_said, "{text}");
        assert!(text.contains(reason));
        assert!(!super::not_opened("undefined symbol: x", &path, &path).to_string().contains("hint"));
    }
}
