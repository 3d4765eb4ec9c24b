//! The first start of the unit as shipped, and later ones.

use super::machine::{Plan, USER};

#[test]
fn very_first_start_serves_with_a_user() {
    let machine = Plan::new().boot();
    machine.start();
    assert_eq!(machine.workers().len(), 2);
    assert_eq!(machine.property("app-host.service", "ActiveState"), "active");
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    machine.assert_serves();
}

#[test]
fn very_first_start_serves_without_a_user() {
    let machine = Plan::new().without("user").boot();
    machine.start();
    machine.ok(&["systemctl", "restart", "app-host.service"]);
    machine.assert_serves();
    assert!(machine.workers().is_empty(), "nothing runs as user {USER}");
    assert_eq!(machine.processes().len(), 3);
}
