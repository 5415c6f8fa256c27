//! clone3(2) onto a stack of its own, the way vfork works: memory shared, the caller asleep until the exec.

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    /// Of [`flag`].
    pub flags: u64,
    /// Where a pidfd is stored.
    pub pidfd: u64,
    /// Unused here.
    pub child_tid: u64,
    /// Where the pid is stored.
    pub parent_tid: u64,
    /// Told to the parent at the end; exec makes it SIGCHLD.
    pub exit_signal: u64,
    /// Lowest address of the child's stack.
    pub stack: u64,
    /// Of the stack.
    pub stack_size: u64,
    /// Unused here.
    pub tls: u64,
    /// Unused here.
    pub set_tid: u64,
    /// Unused here.
    pub set_tid_size: u64,
    /// Descriptor of a cgroup's directory.
    pub cgroup: u64,
}

/// What is shared or wanted, for [`CloneArgs::flags`].
pub mod flag {
    /// Memory is shared.
    pub const VM: u64 = 0x100;
    /// The table of descriptors is shared.
    pub const FILES: u64 = 0x400;
    /// A pidfd of the child is stored in `pidfd`.
    pub const PIDFD: u64 = 0x1000;
    /// The caller sleeps until the child has executed or ended.
    pub const VFORK: u64 = 0x4000;
    /// The child's pid is stored in `parent_tid`.
    pub const PARENT_SETTID: u64 = 0x10_0000;
    /// The child has no signal handlers.
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    /// The child is born into the group of `cgroup`.
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// clone3 onto a stack of its own; the child calls `entry(argument)` there and must never return.
///
/// # Safety
/// `args` must name a stack that nobody else uses until the child has executed or ended.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone_into(
    args: &CloneArgs,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> isize {
    let result: isize;
    // SAFETY: the child never comes out of this block; the parent sees an ordinary system call.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(),
            in("r12") argument, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// clone3 onto a stack of its own; the child calls `entry(argument)` there and must never return.
///
/// # Safety
/// `args` must name a stack that nobody else uses until the child has executed or ended.
#[cfg(target_arch = "aarch64")]
pub unsafe fn clone_into(
    args: &CloneArgs,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> isize {
    let result: isize;
    // SAFETY: the child never comes out of this block; the parent sees an ordinary system call.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args as *const CloneArgs => result,
            in("x1") size_of::<CloneArgs>(),
            in("x20") argument, in("x21") entry,
        );
    }
    result
}
