// SPDX-License-Identifier: GPL-2.0-only
//! Builds the BPF object and its skeleton, and binds include/abi.h to Rust.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest clang whose BPF works.
const CLANG_MIN: u32 = 18;
/// The major version of that compiler, if it is a clang and there.
fn clang_version(name: &str) -> Option<u32> {
    let said = Command::new(name).arg("--version").output().ok()?.stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let (_, version) = said.split_once("clang version ")?;
    version.split('.').next()?.parse().ok()
}

/// In a checkout `.cargo/config.toml` names `scripts/lib/clang`, which looks for one.
fn check_clang() {
    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    let named = env::var("BPF_CLANG").ok().filter(|name| !name.is_empty());
    let clang = named.unwrap_or("clang".into());
    let version = clang_version(&clang);
    if version.is_some_and(|version| version >= CLANG_MIN) {
        return;
    }
    let is = version.map_or("is not there".into(), |version| {
        format!("is version {version}")
    });
    println!("cargo:warning=BPF needs clang {CLANG_MIN} or newer: {clang} {is}");
    println!("cargo:warning=name one by BPF_CLANG=PATH, or run scripts/setup");
    std::process::exit(1);
}

/// The policy for the host, for tests: linked and bound there only.
fn build_for_host(include: &Path, out: &Path) {
    cc::Build::new()
        .file("bpf/core/host.c")
        .include(include)
        .warnings_into_errors(true)
        .compile("proxy_core");
    bindgen::Builder::default()
        .header("bpf/core/host.h")
        .clang_arg(format!("-I{}", include.display()))
        .allowlist_function("host_.*")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate()
        .expect("bindings of bpf/core/host.h")
        .write_to_file(out.join("host.rs"))
        .expect("bindings of bpf/core/host.h");
}

/// scx_cargo watches the folder of main.bpf.c only; ours has rooms.
fn rerun_if_changed(dir: &Path) {
    println!("cargo:rerun-if-changed={}", dir.display());
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for path in entries.map(|entry| entry.expect("folder entry").path()) {
        if path.is_dir() {
            rerun_if_changed(&path);
        } else {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    for dir in ["bpf", "include"] {
        rerun_if_changed(&root.join(dir));
    }
    let include = root.join("include");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    if env::var_os("CARGO_FEATURE_MODEL").is_some() {
        build_for_host(&include, &out);
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        // src/lib.rs says so in words
        return;
    }
    check_clang();
    scx_cargo::BpfBuilder::new()
        .expect("a compiler for BPF")
        .add_include_path(include.to_str().expect("UTF-8 path"))
        .enable_intf("include/abi.h", "abi.rs")
        .enable_skel("bpf/main.bpf.c", "bpf")
        .build()
        .expect("BPF object");
    // for kernels down to 6.1: without the instructions that came later
    scx_cargo::BpfBuilder::new()
        .expect("a compiler for BPF")
        .add_include_path(include.to_str().expect("UTF-8 path"))
        .add_include_path(root.join("bpf").to_str().expect("UTF-8 path"))
        .add_cflag("-mcpu=v3")
        .enable_skel("bpf/beside/beside.bpf.c", "beside")
        .build()
        .expect("BPF object of observe --beside");
}
