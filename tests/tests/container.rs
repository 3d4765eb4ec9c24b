//! docs/operate/container.md, run as it stands: its files, in namespaces of the kernel's instead of an engine's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use app_host_tests::build::workspace;
use app_host_tests::host::wait_until;
use app_host_tests::{Address, App, Connection, Host, process, program, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What stands between the fences of this kind, the first time.
fn block(page: &str, kind: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{kind}\n")).expect("there is such a block");
    rest.split("```").next().unwrap().to_owned()
}

/// The words of an instruction: a JSON list, or one word.
fn instruction(dockerfile: &str, name: &str) -> Vec<String> {
    let line = dockerfile.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    let line = line.trim_start_matches("CMD ");
    serde_json::from_str(line).unwrap_or_else(|_| vec![line.to_owned()])
}

/// A container: process 1 of a pid namespace, whose root can't be written to.
struct Container {
    outside: Child,
}

impl Container {
    fn master(&self) -> u32 {
        let is_master = |pid: &u32| process::name(*pid) == "app-host";
        wait_until(|| process::children(self.outside.id()).into_iter().find(is_master)).expect("process 1")
    }

    /// Runs a command in it, as an engine's `exec` does, and says its exit code.
    fn exec(&self, user: &str, command: &[String]) -> Option<i32> {
        let (uid, gid) = user.split_once(':').unwrap();
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.master().to_string(), "-m", "-p", "--", "setpriv", "--reuid", uid, "--regid", gid]);
        enter.args(["--clear-groups", "--"]).args(command).stdout(Stdio::null()).stderr(Stdio::null());
        enter.status().unwrap().code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(master) = process::children(self.outside.id()).first() {
            process::signal(*master, Signal::SIGKILL);
        }
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<(u16, Vec<u8>)> {
    let address = Address::parse(&format!("127.0.0.1:{port}"))?;
    let mut connection = Connection::connect(&address).ok()?;
    let status = connection.get(path).ok()?;
    Some((status, connection.body().to_vec()))
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn the_page_is_run_as_it_stands() {
    assert!(nix::unistd::getuid().is_root(), "an engine is root, too");
    let page = fs::read_to_string(workspace().join("docs/operate/container.md")).unwrap();
    assert!(page.len() < 8_000, "{} bytes", page.len());
    let dockerfile = block(&page, "dockerfile");
    let mut config: Value = serde_json::from_str(&block(&page, "json")).unwrap();
    // Two of a machine's ports are all that is other than on the page.
    let (port, admin) = (free_port(), free_port());
    assert_eq!((&config["listen"], &config["admin"]), (&json!([":8080"]), &json!(":9090")));
    config["listen"] = json!([format!(":{port}")]);
    config["admin"] = json!(format!(":{admin}"));

    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let image = directory.path().join("image");
    fs::create_dir(&image).unwrap();
    program::copy(App::build().host(), &image.join("app-host"));
    fs::copy(App::build().app("misbehaving"), image.join("libshop.so")).unwrap();
    fs::write(image.join("app-host.json"), config.to_string()).unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let user = instruction(&dockerfile, "USER").remove(0);
    let (uid, gid) = user.split_once(':').unwrap();

    // A volume that an engine makes is whose the image's directory is.
    let make = instruction(&dockerfile, "RUN").remove(0);
    // What `COPY`, `RUN` and `-v` do, in file systems that nobody else sees; then all but the volume is made read-only.
    let script = format!(
        "set -e; cd \"$1\"; mount -t tmpfs none /usr/local/bin; mount -t tmpfs none /srv; mkdir /srv/shop
         cp image/app-host /usr/local/bin; cp image/libshop.so image/app-host.json /srv/shop
         mount -t tmpfs none /var/lib; {make}
         chown --reference=/var/lib/app-host volume; mount --bind volume /var/lib/app-host
         mount -t proc none /proc
         for each in /var/lib /srv /usr/local/bin; do mount -o remount,ro \"$each\"; done
         mount -o remount,bind,ro /; cd /
         shift; exec setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all -- \"$@\""
    );
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--", "sh", "-c", &script, "sh"]).arg(directory.path());
    unshare.args(instruction(&dockerfile, "ENTRYPOINT")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut container = Container { outside: unshare.spawn().unwrap() };
    let said = || fs::read_to_string(directory.path().join("log")).unwrap();

    wait_until(|| get(admin, "/readyz").filter(|(status, _)| *status == 200)).unwrap_or_else(|| panic!("{}", said()));
    assert_eq!(get(admin, "/healthz").unwrap().0, 200);
    let master = container.master();
    assert_eq!(process::status(master, "NSpid").unwrap().split_whitespace().last(), Some("1"));
    assert_eq!(process::status(master, "Uid").unwrap().split_whitespace().next(), Some(uid));
    assert_eq!(process::status(master, "CapBnd").unwrap(), "0000000000000000");
    let refused = ["touch".to_owned(), "/srv/shop/x".to_owned()];
    assert_ne!(container.exec("0:0", &refused), Some(0), "the root is read-only, for root too");
    let (_, body) = get(port, "/whoami").expect("it serves");
    let before: Value = serde_json::from_slice(&body).unwrap();

    // Its health, as the engine asks for it, and a restart without a new container.
    let health = instruction(&dockerfile, "HEALTHCHECK");
    assert_eq!(container.exec(&user, &health), Some(0));
    let restart: Vec<String> = health
        .iter()
        .filter(|word| *word != "status")
        .cloned()
        .chain(["restart", "--wait"].map(str::to_owned))
        .collect();
    assert_eq!(container.exec(&user, &restart), Some(0), "{}", said());
    let (_, body) = get(port, "/whoami").expect("it serves");
    assert_ne!(serde_json::from_slice::<Value>(&body).unwrap()["pid"], before["pid"]);

    // A stop, by the image's own signal.
    let signal: Signal = instruction(&dockerfile, "STOPSIGNAL")[0].parse().unwrap();
    process::signal(master, signal);
    let ended = wait_until(|| container.outside.try_wait().unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", said());
    for line in said().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["msg"].is_string(), "{line}");
    }
    assert!(said().contains("\"stopped\""));
    assert!(Path::new(&volume.join("versions")).exists(), "state is where the volume is");
}

#[test]
fn a_master_lives_from_its_start_to_its_end_and_is_ready_in_between() {
    let host = Host::misbehaving()
        .with("/app/config", json!({ "start_ms": 4_000 }))
        .with("/workers", 1)
        .with("/admin", "127.0.0.1:0");
    host.spawn();
    host.wait_for(said::WORKER_SPAWNED, |_| true);
    let becomes = |path: &str, status: u16| {
        host.wait(&format!("{status} of {path}"), || (host.ask_admin(path).0 == status).then_some(()));
    };
    let lives = || host.ctl(&["status"]).status.success();
    becomes("/healthz", 200);
    assert_eq!((host.ask_admin("/readyz").0, lives()), (503, true));
    assert!(host.lines_with(said::SERVING).is_empty(), "it was too late to see anything");
    host.wait_for(said::SERVING, |_| true);
    becomes("/readyz", 200);
    let mut slow = host.connect();
    slow.ask("/sleep/1500").unwrap();
    host.assert_all_serve(&host.serving());
    host.signal(Signal::SIGTERM);
    becomes("/readyz", 503);
    assert_eq!((host.ask_admin("/healthz").0, lives()), (200, true));
    assert_eq!(slow.receive().unwrap(), 200);
    assert_eq!(host.wait_exit().code(), Some(0));
}
