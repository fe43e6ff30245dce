//! The one file of this crate with `unsafe`: descriptors handed to a runtime that only takes raw ones.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Makes a `T` of a descriptor that nobody else owns.
pub(crate) fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: `into_raw_fd` gives up ownership of an open descriptor, and `T` takes it over: from here on it is the
    // only owner.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}
