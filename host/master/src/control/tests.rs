use super::*;

#[test]
fn users_of_the_file_and_members_of_its_group_are_admitted_and_nobody_else() {
    let admitted = Admitted { users: [0, 10, 20], group: Some(7) };
    for (uid, gid, groups, expected) in [
        (0, 1, vec![], true),
        (10, 1, vec![], true),
        (20, 1, vec![], true),
        (30, 7, vec![], true),
        (30, 1, vec![6, 7], true),
        (30, 1, vec![6, 8], false),
    ] {
        assert_eq!(admitted.admits(uid, gid, || groups), expected, "{uid} {gid}");
    }
    let admitted = Admitted { group: None, ..admitted };
    assert!(!admitted.admits(30, 7, || vec![7]), "the mode doesn't let the group connect");
}
