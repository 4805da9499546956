#!/usr/bin/env bash
# Installs all that building, checking and testing wsproxy needs on Debian or Ubuntu:
#
#   xtask/setup-debian.sh
#
# Needs root (or sudo), and cargo from rustup. What is there already is left as it is.
# Building and running wsproxy alone needs none of it: cargo is enough.
set -euo pipefail

# Keep in step with HOW_TO_GET_ONE in xtask/src/ebpf/toolchain.rs.
BPF_LINKER=0.13.0
CARGO_DENY=0.20.2

say() { printf '%s\n' "$*"; }
die() { printf 'setup-debian.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

as_root=()
if [ "$(id -u)" != 0 ]; then
  has sudo || die 'run this as root: sudo is not there'
  as_root=(sudo)
fi
has apt-get || die 'apt-get is not there: this is for Debian and Ubuntu'
has cargo || die 'cargo is not there: install Rust with rustup first'

lists_are_fresh=
fresh_lists() {
  [ -n "$lists_are_fresh" ] || "${as_root[@]}" apt-get update
  lists_are_fresh=1
}
# No pipe: with `pipefail`, a `grep -q` that is done early makes the program before it fail.
offers() { [[ $(apt-cache policy "$1") =~ Candidate:\ [0-9] ]]; }
install() {
  fresh_lists
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@"
}

# Packages of servers, which apt would start: a policy that says no, unless there is one already.
install_without_starting() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    install "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
  install "$@" || { "${as_root[@]}" rm "$policy"; return 1; }
  "${as_root[@]}" rm "$policy"
}

has_bpf_core() {
  local folder
  folder=$(/usr/bin/rustc --print target-libdir --target bpfel-unknown-none 2>/dev/null) || return 1
  compgen -G "$folder/libcore-*.rlib" >/dev/null
}

# The compiler with a ready core library for BPF. It does not touch rustup's.
bpf_compiler() {
  has_bpf_core && return
  fresh_lists
  if offers libstd-rust-web-dev-bpf; then
    install rustc-web libstd-rust-web-dev-bpf
  elif offers libstd-rust-dev-bpf; then
    install rustc libstd-rust-dev-bpf
  else
    say 'NOTE: this release has no core library for BPF, so the committed BPF object can be'
    say 'neither rebuilt nor checked here. The other way is a nightly toolchain with rust-src:'
    say '`cargo xtask build-ebpf` tells how.'
  fi
}

# The file name of the LLVM library that a program loads; nothing if it loads none.
llvm_of() { ldd "$1" 2>/dev/null | sed -n 's/^[[:space:]]*\(libLLVM[^ ]*\) => \/.*/\1/p'; }

bpf_linker() {
  has_bpf_core || return 0
  local library major prefix
  library=$(ldd /usr/bin/rustc | sed -n 's/^[[:space:]]*libLLVM[^ ]* => \(\/[^ ]*\).*/\1/p')
  [ -n "$library" ] || die '/usr/bin/rustc loads no libLLVM, which bpf-linker has to share'
  if has bpf-linker && [ "$(bpf-linker --version 2>/dev/null)" = "bpf-linker $BPF_LINKER" ] &&
    [ "$(llvm_of "$(command -v bpf-linker)")" = "$(llvm_of /usr/bin/rustc)" ]; then
    return
  fi
  major=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  prefix=$(mktemp -d)
  mkdir "$prefix/lib"
  ln -s "$library" "$prefix/lib/libLLVM.so"
  LLVM_PREFIX=$prefix cargo install bpf-linker --version "$BPF_LINKER" --locked --force \
    --no-default-features --features "llvm-$major" ||
    die "bpf-linker $BPF_LINKER could not be built for LLVM $major; is there a newer one?"
  rm -r "$prefix"
}

has_arm_library() {
  local folder
  folder=$(rustc --print target-libdir --target aarch64-unknown-linux-gnu 2>/dev/null) || return 1
  compgen -G "$folder/libstd-*.rlib" >/dev/null
}

# Rust's library for arm64. That of Debian's compiler is fetched by who needs it (xtask/src/cross.rs).
arm_library() {
  has_arm_library && return
  if [ -x /usr/bin/rustc ]; then
    case "$(dpkg-query -W -f ':${db:Status-Status}:' libstd-rust-web-dev libstd-rust-dev 2>/dev/null)" in
      *:installed:*) return ;;
    esac
  fi
  has rustup && rustup target add aarch64-unknown-linux-gnu && return
  say 'NOTE: Rust has no library for arm64, so neither guests nor packages for it can be built here.'
}

cargo_deny() {
  case "$(cargo deny --version 2>/dev/null)" in
    "cargo-deny ${CARGO_DENY%.*}."*) return ;;
  esac
  cargo install cargo-deny --version "$CARGO_DENY" --locked --force
}

packages=() peers=()
need() { packages+=("$@"); }
{ has cc && has c++ && has make; } || need build-essential
has pkg-config || need pkg-config
has llvm-objcopy || need llvm
has ip || need iproute2
has valgrind || need valgrind
# The package, its unit and its man pages are looked at with these; systemd need not run.
has dpkg-deb || need dpkg
has systemd-analyze || need systemd
has groff || need groff-base
{ has setpriv && has unshare; } || need util-linux
# The terminal that `wsproxy top` is tested on.
has tmux || need tmux
# Guests with other kernels and on arm64 (cargo xtask vm). The cross compiler is of use on a PC only.
has qemu-system-x86_64 || need qemu-system-x86
has qemu-system-aarch64 || need qemu-system-arm
has aarch64-linux-gnu-gcc || need gcc-aarch64-linux-gnu libc6-dev-arm64-cross
has xz || need xz-utils
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need debian-archive-keyring
# Measured beside wsproxy, never run as services.
[ -x /usr/sbin/nginx ] || peers+=(nginx-light)
[ -x /usr/sbin/haproxy ] || peers+=(haproxy)
{ has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; } || need python3 python3-venv
has node || need nodejs npm
has chromium || has chromium-browser || has google-chrome || need chromium
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
[ ${#peers[@]} = 0 ] || install_without_starting "${peers[@]}"

bpf_compiler
bpf_linker
arm_library
cargo_deny
say 'all is there: `cargo xtask test` runs every check'
