// SPDX-License-Identifier: GPL-2.0-only
//! Owns the recipe for a ww_mutex, the `dma_resv` lock of a graphics buffer: the owner maps a buffer
//! of the driver vgem for the first time, which allocates its pages inside the lock; the waiter maps
//! the same buffer.

use super::{Recipe, Setup};
use crate::alias::PAGE_BYTES;
use crate::spawn::WorkerKind;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub static RECIPE: Recipe = Recipe {
    name: "ww_mutex",
    summary: "dma_resv lock of a vgem buffer: owner mmap()s it first, waiter mmap()s it",
    default_hogs: 1,
    by_default: false,
    donates: true,
    workers: WorkerKind::Processes,
    links: 1,
    pages_max: || PAGES_MAX,
    unavailable,
    build: |pages| Ok(Box::new(Buffer::new(pages)?)),
};

/// 512 MiB, all of which an owner takes up.
const PAGES_MAX: usize = 1 << 17;
const CARDS_MAX: usize = 16;
const DRIVER: &[u8] = b"vgem";

// Numbers and structures from include/uapi/drm/drm.h and drm_mode.h.
const DRM_IOCTL_VERSION: libc::Ioctl = libc::_IOWR::<Version>(b'd' as u32, 0x00);
const CREATE_DUMB: libc::Ioctl = libc::_IOWR::<CreateDumb>(b'd' as u32, 0xB2);
const MAP_DUMB: libc::Ioctl = libc::_IOWR::<MapDumb>(b'd' as u32, 0xB3);
const DESTROY_DUMB: libc::Ioctl = libc::_IOWR::<u32>(b'd' as u32, 0xB4);

#[derive(Default)]
#[repr(C)]
struct Version {
    numbers: [i32; 3],
    name_bytes: usize,
    name: usize,
    date_bytes: usize,
    date: usize,
    description_bytes: usize,
    description: usize,
}

#[derive(Default)]
#[repr(C)]
struct CreateDumb {
    height: u32,
    width: u32,
    bits_per_pixel: u32,
    flags: u32,
    handle: u32,
    pitch: u32,
    size: u64,
}

#[derive(Default)]
#[repr(C)]
struct MapDumb {
    handle: u32,
    pad: u32,
    offset: u64,
}

fn unavailable() -> Option<String> {
    let error = Buffer::new(1).err()?;
    Some(format!("cannot make a vgem buffer: {error:#}"))
}

/// A row of the picture is a page. Its descriptor is the workers' too; its pages go with the last mapping.
struct Buffer {
    card: File,
    pages: usize,
    handle: u32,
    offset: u64,
}

impl Buffer {
    fn new(pages: usize) -> Result<Buffer> {
        let mut buffer = Buffer {
            card: open_card()?,
            pages,
            handle: 0,
            offset: 0,
        };
        buffer.reset()?;
        Ok(buffer)
    }

    fn destroy(&mut self) -> io::Result<()> {
        if self.handle == 0 {
            return Ok(());
        }
        drm_ioctl(&self.card, DESTROY_DUMB, &mut self.handle)?;
        self.handle = 0;
        Ok(())
    }

    /// Leaves it mapped: the process ends soon.
    fn map(&self) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                self.pages * PAGE_BYTES,
                protection,
                libc::MAP_SHARED,
                self.card.as_raw_fd(),
                self.offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Closing it destroys the buffers made by it.
fn open_card() -> Result<File> {
    for number in 0..CARDS_MAX {
        let path = format!("/dev/dri/card{number}");
        let Ok(card) = File::options().read(true).write(true).open(&path) else {
            continue;
        };
        let mut name = [0u8; DRIVER.len()];
        let mut version = Version {
            name_bytes: name.len(),
            name: name.as_mut_ptr().expose_provenance(),
            ..Version::default()
        };
        drm_ioctl(&card, DRM_IOCTL_VERSION, &mut version)
            .with_context(|| format!("cannot ask {path} for its driver"))?;
        if version.name_bytes == DRIVER.len() && name == DRIVER {
            return Ok(card);
        }
    }
    bail!("no /dev/dri/card* of it can be opened; load its module (modprobe vgem), run as root")
}

/// Calls one of the ioctls above with its own structure.
fn drm_ioctl<T>(card: &File, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    let argument: *mut T = argument;
    // SAFETY: `argument` is valid for reading and writing a T, which is what `request` is made of.
    if unsafe { libc::ioctl(card.as_raw_fd(), request, argument) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Setup for Buffer {
    fn reset(&mut self) -> Result<()> {
        self.destroy().context("cannot destroy a buffer")?;
        let mut create = CreateDumb {
            height: self.pages as u32,
            width: (PAGE_BYTES / 4) as u32,
            bits_per_pixel: 32,
            ..CreateDumb::default()
        };
        drm_ioctl(&self.card, CREATE_DUMB, &mut create).context("cannot create a buffer")?;
        self.handle = create.handle;
        let mut map = MapDumb {
            handle: self.handle,
            ..MapDumb::default()
        };
        drm_ioctl(&self.card, MAP_DUMB, &mut map).context("cannot have a buffer mapped")?;
        self.offset = map.offset;
        Ok(())
    }

    fn hold(&self, _link: usize) -> io::Result<()> {
        self.map()
    }

    fn wait(&self) -> io::Result<()> {
        self.map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(DRM_IOCTL_VERSION, 0xc040_6400);
        assert_eq!(CREATE_DUMB, 0xc020_64b2);
        assert_eq!(MAP_DUMB, 0xc010_64b3);
        assert_eq!(DESTROY_DUMB, 0xc004_64b4);
    }
}
