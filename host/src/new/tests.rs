use super::*;

#[test]
fn library_is_named_as_seen_from_the_crate() {
    let seen = |directory: &str, path: &str| seen_from(Path::new(directory), Path::new(path));
    assert_eq!(seen("/home/x", "/home/x/target/release/libx.so"), Path::new("target/release/libx.so"));
    assert_eq!(seen("/home/w/x", "/home/w/target/release/libx.so"), Path::new("../target/release/libx.so"));
    assert_eq!(seen("/home/x", "/var/cache/release/libx.so"), Path::new("/var/cache/release/libx.so"));
}

#[test]
fn cargos_manifest_keeps_what_else_it_says() {
    let cargos = "[package]\nname = \"x\"\n\n[dependencies]\n\n[lints]\nworkspace = true\n";
    let text = with_app(cargos, Path::new("/a \"b\""), false).unwrap();
    assert!(text.starts_with("[package]\nname = \"x\"\n\n[lib]\n"), "{text}");
    assert!(text.contains("[dependencies]\napp-abi = { path = \"/a \\\"b\\\"\" }\n"), "{text}");
    assert!(text.ends_with("\n\n[lints]\nworkspace = true\n"), "{text}");
    assert!(with_app("[package]\n", Path::new("/a"), true).is_err());
}

#[test]
fn a_shell_takes_a_word_as_it_is() {
    assert_eq!(quoted("apps/shop-1"), "apps/shop-1");
    assert_eq!(quoted("my shop"), "'my shop'");
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted("$(x)"), "'$(x)'");
}
