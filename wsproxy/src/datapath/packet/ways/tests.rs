//! In network namespaces, as the kernel answers; and messages as other kernels write them.

mod kernel;
mod messages;
