//! The observer as an ordinary user with few capabilities, and behind a seccomp filter: it works, or says what is missing.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use netpol_observer::capture::permissions::Capability;

use crate::support::{arguments_for_this_machine, machine};

/// Not the user that files and processes of this machine belong to.
const NOBODY: libc::uid_t = 65532;

const CAPTURE: [Capability; 3] = [Capability::Bpf, Capability::Perfmon, Capability::Syslog];

/// What confines the process.
#[derive(Clone, Copy)]
struct Confinement {
    /// Effective, permitted and ambient set, as bits.
    capabilities: u64,
    /// What bpf() fails with by a seccomp filter.
    bpf_fails_with: Option<i32>,
    /// RLIMIT_MEMLOCK in bytes.
    memlock: Option<u64>,
}

fn with(capabilities: &[Capability]) -> Confinement {
    let bits = capabilities.iter().fold(0, |bits, capability| bits | 1 << capability.bit());
    Confinement { capabilities: bits, bpf_fails_with: None, memlock: None }
}

/// `struct __user_cap_header_struct` and `__user_cap_data_struct` (include/uapi/linux/capability.h, version 3).
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn ok(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Confines the calling process, which is about to become the observer. Nothing here allocates: it runs between fork and exec.
fn confine(confinement: Confinement) -> io::Result<()> {
    const PR_CAP_AMBIENT_RAISE: libc::c_ulong = 2;
    // SAFETY: system calls on this process alone; every pointer is to a local that outlives its call.
    unsafe {
        if let Some(bytes) = confinement.memlock {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            ok(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit).into())?;
        }
        ok(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
        ok(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        ok(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY))?;
        ok(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY))?;
        let set = |word: u64| word as u32;
        let bits = confinement.capabilities;
        let data = [bits, bits >> 32].map(|half| CapData { effective: set(half), permitted: set(half), inheritable: set(half) });
        let header = CapHeader { version: 0x2008_0522, pid: 0 };
        ok(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))?;
        for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
            ok(libc::prctl(libc::PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit as libc::c_ulong, 0, 0).into())?;
        }
        if let Some(error) = confinement.bpf_fails_with {
            refuse_bpf(error)?;
        }
    }
    Ok(())
}

/// A filter as container runtimes install them: the call fails without reaching the kernel.
fn refuse_bpf(error: i32) -> io::Result<()> {
    // Load the system call's number, the first word of seccomp_data; equal to bpf's: fail; else: allow.
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its instructions outlive the calls.
    unsafe {
        ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        ok(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into())
    }
}

fn doctor(confinement: Confinement) -> (bool, String) {
    // A copy that the other user may run: build directories are often closed to others.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("observer");
    std::fs::copy(env!("CARGO_BIN_EXE_observer"), &program).unwrap();
    let open = |path: &std::path::Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    open(directory.path());
    open(&program);
    let mut command = Command::new(&program);
    command.args(["doctor", "--color", "never"]).args(arguments_for_this_machine()).current_dir("/");
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(move || confine(confinement)) };
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.success(), text)
}

/// Before 5.11 maps count against the memory lock limit, and raising it takes one capability more.
fn needed() -> Vec<Capability> {
    let mut needed = CAPTURE.to_vec();
    let release = netpol_observer::capture::kernel::release();
    if netpol_observer::capture::permissions::charges_memlock(&release) {
        needed.push(Capability::SysResource);
    }
    needed
}

#[test]
fn three_capabilities_are_enough() {
    let Some(_machine) = machine("confined::three_capabilities_are_enough") else { return };
    let (works, text) = doctor(with(&needed()));
    assert!(works, "{text}");
    assert!(text.contains("its record has arrived"), "{text}");
    assert!(!text.contains("FAILS"), "{text}");
}

#[test]
fn a_missing_capability_is_named() {
    let Some(_machine) = machine("confined::a_missing_capability_is_named") else { return };
    for missing in CAPTURE {
        let rest: Vec<Capability> = needed().into_iter().filter(|&capability| capability != missing).collect();
        let (works, text) = doctor(with(&rest));
        assert!(text.contains(&format!("missing {}", missing.name())) || text.contains(&format!("not {}", missing.name())), "{text}");
        assert!(!text.contains("seccomp filter does not"), "{text}");
        // Without symbols most drops are still told by their reason.
        let has_reasons = !text.contains("before 5.17") && !text.contains("gives no drop reasons");
        assert_eq!(works, missing == Capability::Syslog && has_reasons, "{text}");
    }
}

#[test]
fn a_seccomp_refusal_is_told_from_a_missing_capability() {
    let Some(_machine) = machine("confined::a_seccomp_refusal_is_told_from_a_missing_capability") else { return };
    for error in [libc::EPERM, libc::ENOSYS] {
        let (works, text) = doctor(Confinement { bpf_fails_with: Some(error), ..with(&needed()) });
        assert!(!works, "{text}");
        assert!(text.contains("a seccomp filter does not let it through"), "{text}");
        assert!(!text.contains("missing CAP_"), "{text}");
    }
}

#[test]
fn a_memory_lock_limit_matters_before_5_11_only() {
    let Some(_machine) = machine("confined::a_memory_lock_limit_matters_before_5_11_only") else { return };
    let (works, text) = doctor(Confinement { memlock: Some(64 * 1024), ..with(&CAPTURE) });
    if needed().contains(&Capability::SysResource) {
        assert!(!works && text.contains("CAP_SYS_RESOURCE") && text.contains("64 KiB"), "{text}");
    } else {
        assert!(works, "{text}");
    }
}
