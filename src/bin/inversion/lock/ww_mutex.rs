// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a ww_mutex: the reservation lock (dma_resv) of a buffer of the virtual GPU
//! driver vgem. Who maps such a buffer first allocates and clears all its pages under that lock
//! (drm_gem_shmem_mmap()); the waiter maps a page of the same buffer.
//!
//! Needs the module vgem, and takes the card that is its, whatever other cards there are.

use super::{Recipe, Stage, i_rwsem};
use crate::alias::PAGE_BYTES;
use crate::crew::Actors;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

pub static RECIPE: Recipe = Recipe {
    name: "ww_mutex",
    summary: "ww_mutex of a buffer of the module vgem: owner mmap()s it first, waiter mmap()s a page of it",
    default_hogs: 1,
    by_default: false,
    donates: true,
    actors: Actors::Processes,
    links: 1,
    pages_max: i_rwsem::pages_max,
    unavailable: || {
        let help =
            "the module vgem is not loaded: modprobe vgem (Debian: not in the cloud flavour)";
        card().is_none().then(|| help.to_string())
    },
    build: |pages| Ok(Box::new(Buffer::new(pages)?)),
};

/// The device of vgem, by where its folder in /sys is.
fn card() -> Option<PathBuf> {
    let cards = fs::read_dir("/sys/class/drm").ok()?;
    let mut names = cards.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = names.find(|name| {
        let number = name.strip_prefix("card");
        let is_card = number.is_some_and(|number| number.parse::<u32>().is_ok());
        is_card
            && fs::canonicalize(format!("/sys/class/drm/{name}"))
                .is_ok_and(|path| path.to_string_lossy().contains("/vgem/"))
    })?;
    Some(PathBuf::from("/dev/dri").join(name))
}

// include/uapi/drm/drm_mode.h

#[repr(C)]
#[derive(Default)]
struct CreateDumb {
    height: u32,
    width: u32,
    bits_per_pixel: u32,
    flags: u32,
    handle: u32,
    pitch: u32,
    size: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapDumb {
    handle: u32,
    pad: u32,
    offset: u64,
}

#[repr(C)]
struct DestroyDumb {
    handle: u32,
}

const CREATE_DUMB: libc::c_ulong = 0xb2;
const MAP_DUMB: libc::c_ulong = 0xb3;
const DESTROY_DUMB: libc::c_ulong = 0xb4;
/// A row of 32-bit pixels that fills a page.
const ROW_PIXELS: u32 = (PAGE_BYTES / 4) as u32;

/// DRM_IOWR of include/uapi/drm/drm.h.
fn drm<T>(card: &File, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    let request = 3 << 30 | (size_of::<T>() as libc::c_ulong) << 16 | 0x64 << 8 | number;
    // SAFETY: the argument is of the size that the request says, and valid for the call.
    if unsafe { libc::ioctl(card.as_raw_fd(), request, std::ptr::from_mut(argument)) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

struct Buffer {
    card: File,
    pages: usize,
    /// Of the present buffer: its handle, and where it is to be mapped.
    present: Option<(u32, u64)>,
}

impl Buffer {
    fn new(pages: usize) -> Result<Buffer> {
        let path = card().context("the module vgem is not loaded")?;
        let card = File::options().read(true).write(true).open(&path);
        Ok(Buffer {
            card: card.with_context(|| format!("cannot open {}", path.display()))?,
            pages,
            present: None,
        })
    }

    fn renew(&mut self) -> io::Result<()> {
        if let Some((handle, _)) = self.present.take() {
            drm(&self.card, DESTROY_DUMB, &mut DestroyDumb { handle })?;
        }
        let mut create = CreateDumb {
            height: self.pages as u32,
            width: ROW_PIXELS,
            bits_per_pixel: 32,
            ..CreateDumb::default()
        };
        drm(&self.card, CREATE_DUMB, &mut create)?;
        let mut map = MapDumb {
            handle: create.handle,
            ..MapDumb::default()
        };
        drm(&self.card, MAP_DUMB, &mut map)?;
        self.present = Some((create.handle, map.offset));
        Ok(())
    }

    /// Maps that much of the buffer; the mapping ends with the process.
    fn map(&self, bytes: usize) -> io::Result<()> {
        let (_, offset) = self.present.ok_or(io::ErrorKind::NotFound)?;
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, self.card.as_raw_fd());
        // SAFETY: the kernel chooses the place, and nobody touches what is there.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                fd,
                offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Stage for Buffer {
    fn reset(&mut self) -> Result<()> {
        self.renew()
            .context("cannot make a buffer of the module vgem")
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.map(self.pages * PAGE_BYTES)
    }

    fn wait(&self) -> io::Result<()> {
        self.map(PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_as_large_as_the_kernel_has_them() {
        assert_eq!(size_of::<CreateDumb>(), 32);
        assert_eq!(size_of::<MapDumb>(), 16);
        assert_eq!(size_of::<DestroyDumb>(), 4);
    }

    #[test]
    fn without_the_module_it_says_so() {
        assert_eq!((RECIPE.unavailable)().is_none(), card().is_some());
    }
}
