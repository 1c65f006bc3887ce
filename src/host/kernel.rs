//! The kernel's version and whether it lets this process use io_uring.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

use super::{Problem, sys};

/// The oldest kernel with all io_uring operations that the shards use: multishot polls came with 5.13.
const OLDEST_KERNEL: (u32, u32) = (5, 13);

/// Refuses kernels that are too old.
pub fn check_kernel() -> Result<(), Problem> {
    let release = sys::kernel_release().map_err(|error| {
        Problem::new(format!("cannot read the kernel's version ({error})"), "run on Linux 5.13 or newer")
    })?;
    judge_release(&release)
}

/// Refuses to start where io_uring is missing or forbidden, and says which of the two.
pub fn check_io_uring() -> Result<(), Problem> {
    sys::probe_io_uring().map_err(|error| {
        let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        explain_io_uring(&error, setting.as_deref().map(str::trim))
    })
}

fn judge_release(release: &str) -> Result<(), Problem> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return Ok(());
    }
    let (major, minor) = OLDEST_KERNEL;
    Err(Problem::new(format!("Linux {release} is too old"), format!("run on Linux {major}.{minor} or newer")))
}

fn explain_io_uring(error: &io::Error, disabled_setting: Option<&str>) -> Problem {
    match (error.raw_os_error(), disabled_setting) {
        (Some(libc::ENOSYS), _) => Problem::new(
            "the kernel has no io_uring, or a sandbox hides it",
            "use a kernel with CONFIG_IO_URING, outside of sandboxes such as gVisor",
        ),
        (Some(libc::EPERM), Some("1")) => Problem::new(
            "io_uring is reserved for privileged users here",
            "sysctl kernel.io_uring_disabled=0, or add this user to the group of kernel.io_uring_group",
        ),
        (Some(libc::EPERM), Some("2")) => {
            Problem::new("io_uring is switched off on this machine", "sysctl kernel.io_uring_disabled=0")
        }
        (Some(libc::EPERM | libc::EACCES), _) => Problem::new(
            "a seccomp or security profile forbids io_uring",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's profile \
             (docker run --security-opt seccomp=<profile>)",
        ),
        (Some(libc::ENOMEM), _) => Problem::new(
            "not enough locked memory for an io_uring",
            "LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited",
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            Problem::new("no file descriptor left for an io_uring", "raise the limit of open files (ulimit -n)")
        }
        _ => Problem::new(format!("io_uring cannot be set up ({error})"), "run on Linux 5.13 or newer with io_uring"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for good in ["5.13.0", "5.14.0-362.el9", "6.18.44-custom", "10.0", "5.15"] {
            assert_eq!(judge_release(good), Ok(()), "{good}");
        }
        for bad in ["5.12.19", "5.10.0-21-amd64", "4.19.0-25-amd64", "3.10", "", "unknown"] {
            assert!(judge_release(bad).is_err(), "{bad}");
        }
        let problem = judge_release("5.4.0-150").unwrap_err().to_string();
        assert_eq!(problem, "Linux 5.4.0-150 is too old: run on Linux 5.13 or newer");
    }

    /// Each way in which io_uring can be missing is told apart, because each has its own remedy.
    #[test]
    fn refusals_are_told_apart() {
        let cases = [
            (libc::ENOSYS, None, "CONFIG_IO_URING"),
            (libc::EPERM, Some("1"), "kernel.io_uring_group"),
            (libc::EPERM, Some("2"), "switched off"),
            (libc::EPERM, Some("0"), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOMEM, None, "LimitMEMLOCK=infinity"),
            (libc::EMFILE, None, "ulimit -n"),
            (libc::EINVAL, None, "cannot be set up"),
        ];
        for (code, setting, part) in cases {
            let problem = explain_io_uring(&io::Error::from_raw_os_error(code), setting).to_string();
            assert!(problem.contains(part), "{problem}");
            assert_eq!(problem.lines().count(), 1);
        }
    }
}
