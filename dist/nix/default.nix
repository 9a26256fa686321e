# SPDX-License-Identifier: GPL-2.0-only
# nix-build dist/nix, in a checkout.
{
  pkgs ? import <nixpkgs> { },
}:

pkgs.rustPlatform.buildRustPackage {
  pname = "scx_proxy";
  version = "0.2.0";
  src = pkgs.lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = with pkgs; [
    llvmPackages.clang-unwrapped # BPF: the wrapper's hardening flags are not for it
    rustPlatform.bindgenHook
    pkg-config
    python3
  ];
  buildInputs = with pkgs; [
    elfutils
    libseccomp
    zlib
  ];
  BPF_CLANG = "${pkgs.llvmPackages.clang-unwrapped}/bin/clang";

  dontCargoBuild = true;
  buildPhase = ''
    patchShebangs scripts
    scripts/package tree "$TMPDIR/tree"
  '';
  installPhase = ''
    mkdir -p "$out"
    cp -a "$TMPDIR/tree/usr/." "$out/"
    mv "$out/share/zsh/vendor-completions" "$out/share/zsh/site-functions"
    install -D "$TMPDIR/tree/etc/scx_proxy.toml" "$out/share/scx_proxy/scx_proxy.toml"
    substituteInPlace "$out/lib/systemd/system/scx_proxy.service" --replace-fail /usr/bin/scx_proxy "$out/bin/scx_proxy"
  '';
  # they want a kernel, or clang for the host
  doCheck = false;

  meta = {
    description = "sched_ext scheduler with proxy execution";
    license = pkgs.lib.licenses.gpl2Only;
    platforms = [ "x86_64-linux" ];
    mainProgram = "scx_proxy";
  };
}
