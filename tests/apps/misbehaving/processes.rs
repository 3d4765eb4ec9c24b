//! Threads and memory that are never given back, and processes that the app starts.

use std::time::Duration;

/// Never gives the thread back.
pub(crate) fn block() -> ! {
    loop {
        std::thread::park();
    }
}

/// Leaks memory that is really there, because every page of it was written to.
pub(crate) fn grow(mib: u64) {
    let bytes = usize::try_from(mib << 20).unwrap_or(0);
    std::mem::forget(std::hint::black_box(vec![1_u8; bytes]));
}

/// Starts a process as an app may, and tells its descriptors and signal dispositions.
pub(crate) fn show_child() -> String {
    let Ok(mut child) = std::process::Command::new("sleep").arg("60").spawn() else {
        return "no child".to_owned();
    };
    let proc = format!("/proc/{}", child.id());
    // `spawn` may return while the kernel still works on the exec, which gives the new command line
    // before it closes descriptors: only the new program itself comes to its sleep.
    let read = |file: &str| std::fs::read_to_string(format!("{proc}/{file}")).unwrap_or_default();
    let exec_is_done = || read("cmdline").starts_with("sleep") && read("status").contains("State:\tS");
    while !exec_is_done() && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut text = String::new();
    if let Ok(entries) = std::fs::read_dir(format!("{proc}/fd")) {
        for entry in entries.flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let (descriptor, target) = (entry.file_name(), target.to_string_lossy());
            text.extend(["fd ", &descriptor.to_string_lossy(), " ", &target, "\n"]);
        }
    }
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("Sig")) {
        text.push_str(line);
        text.push('\n');
    }
    let _ = child.kill();
    let _ = child.wait();
    text
}

/// Leaves a process behind whose parent has gone; answers its process id.
pub(crate) fn make_orphan() -> String {
    let output = std::process::Command::new("sh").args(["-c", "sleep 60 >&- 2>&- & echo $!"]).output();
    output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
