// Package kernel reads what the kernel tells about mounts and loop devices,
// from mountinfo and sysfs only. None of it makes the kernel read from a
// device, so a daemon may ask about mounts whose reads it serves itself.
package kernel
