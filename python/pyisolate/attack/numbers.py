"""System call numbers, which neither ctypes nor the standard library knows."""

import platform

# Name, x86-64, the generic table of aarch64 (`-`: not there).
_TABLE = """
read 0 63; write 1 64; open 2 -; openat 257 56; stat 4 -; newfstatat 262 79; statx 332 291;
access 21 -; faccessat 269 48; readlink 89 -; readlinkat 267 78; getdents64 217 61;
chdir 80 49; getpid 39 172; getuid 102 174; uname 63 160; creat 85 -; truncate 76 45;
mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -;
renameat 264 38; renameat2 316 276; link 86 -; linkat 265 37; symlink 88 -; symlinkat 266 36;
mknod 133 -; mknodat 259 33; chmod 90 -; fchmod 91 52; fchmodat 268 53; chown 92 -;
lchown 94 -; fchownat 260 54; fchown 93 55; utimensat 280 88; utime 132 -; setxattr 188 5;
lsetxattr 189 6; fsetxattr 190 7; getxattr 191 8; removexattr 197 14; fallocate 285 47;
copy_file_range 326 285; statfs 137 43; flock 73 32; inotify_init1 294 26; fanotify_init 300 262;
name_to_handle_at 303 264; open_by_handle_at 304 265; openat2 437 437; quotactl 179 60;
socket 41 198; socketpair 53 199; connect 42 203; bind 49 200; listen 50 201; accept 43 202;
accept4 288 242; sendmmsg 307 269; recvmmsg 299 243; sendto 44 206; fcntl 72 25; ioctl 16 29;
mmap 9 222; prctl 157 167; prlimit64 302 261; setrlimit 160 164; tgkill 234 131;
getsockname 51 204; lseek 8 62; fork 57 -; vfork 58 -; clone 56 220; clone3 435 435;
execve 59 221; execveat 322 281; wait4 61 260; ptrace 101 117; process_vm_readv 310 270;
process_vm_writev 311 271; process_madvise 440 440; kcmp 312 272; pidfd_open 434 434;
pidfd_getfd 438 438; pidfd_send_signal 424 424; kill 62 129; tkill 200 130;
rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240; mount 165 40; umount2 166 39;
pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429; fsopen 430 430;
fsconfig 431 431; fsmount 432 432; fspick 433 433; mount_setattr 442 442; unshare 272 97;
setns 308 268; sethostname 170 161; setdomainname 171 162; setuid 105 146; setgid 106 144;
setreuid 113 145; setregid 114 143; setresuid 117 147; setresgid 119 149; setfsuid 122 151;
setfsgid 123 152; setsid 112 157; setpgid 109 154; capget 125 90; capset 126 91;
personality 135 92; add_key 248 217; request_key 249 218; keyctl 250 219; bpf 321 280;
perf_event_open 298 241; userfaultfd 323 282; io_uring_setup 425 425; io_uring_enter 426 426;
io_uring_register 427 427; memfd_create 319 279; memfd_secret 447 447; seccomp 317 277;
landlock_create_ruleset 444 444; landlock_add_rule 445 445; landlock_restrict_self 446 446;
arch_prctl 158 -; modify_ldt 154 -; set_thread_area 205 -; iopl 172 -; ioperm 173 -;
shmget 29 194; shmat 30 196; shmctl 31 195; semget 64 190; semctl 66 191; msgget 68 186;
msgctl 71 187; mq_open 240 180; mq_unlink 241 181; mq_notify 244 184; timer_create 222 107;
timerfd_create 283 85; signalfd4 289 74; io_setup 206 0; io_submit 209 2; splice 275 76;
tee 276 77; vmsplice 278 75; remap_file_pages 216 234; mbind 237 235; set_mempolicy 238 237;
migrate_pages 256 238; move_pages 279 239; mlock 149 228; mlockall 151 230; mlock2 325 284;
sched_setaffinity 203 122; sched_setscheduler 144 119; sched_setattr 314 274;
setpriority 141 140; getpriority 140 141; ioprio_set 251 30; ioprio_get 252 31; sysfs 139 -;
lookup_dcookie 212 18; get_robust_list 274 100; adjtimex 159 171; clock_adjtime 305 266;
clock_settime 227 112; process_mrelease 448 448; pkey_alloc 330 289; pkey_mprotect 329 288;
shmdt 67 197; semop 65 193; semtimedop 220 192; msgsnd 69 189; msgrcv 70 188; getdents 78 -;
ustat 136 -; syncfs 306 267; sync_file_range 277 84; timer_settime 223 110; timer_gettime 224 108;
timer_getoverrun 225 109; timer_delete 226 111; timerfd_settime 286 86; timerfd_gettime 287 87;
signalfd 282 -; inotify_init 253 -; inotify_add_watch 254 27; inotify_rm_watch 255 28;
fanotify_mark 301 263; io_destroy 207 1; io_cancel 210 3; io_getevents 208 4; io_pgetevents 333 292;
lgetxattr 192 9; fgetxattr 193 10; listxattr 194 11; llistxattr 195 12; flistxattr 196 13;
lremovexattr 198 15; fremovexattr 199 16; mq_timedsend 242 182; mq_timedreceive 243 183;
mq_getsetattr 245 185; sched_setparam 142 118; sched_getattr 315 275;
sched_rr_get_interval 148 127; munlock 150 229; mincore 27 232; readahead 187 213;
get_mempolicy 239 236; pkey_free 331 290; utimes 235 -; futimesat 261 -; cachestat 451 451;
fchmodat2 452 452; map_shadow_stack 453 453; futex_wake 454 454; futex_wait 455 455;
futex_requeue 456 456; statmount 457 457; listmount 458 458; lsm_get_self_attr 459 459;
lsm_set_self_attr 460 460; lsm_list_modules 461 461; mseal 462 462; setxattrat 463 463;
getxattrat 464 464; listxattrat 465 465; removexattrat 466 466; open_tree_attr 467 467;
quotactl_fd 443 443; set_mempolicy_home_node 450 450; uselib 134 -;
fstatfs 138 44; munlockall 152 231; _sysctl 156 -; create_module 174 -; get_kernel_syms 177 -;
query_module 178 -; nfsservctl 180 42; getpmsg 181 -; putpmsg 182 -; afs_syscall 183 -;
tuxcall 184 -; security 185 -; get_thread_area 211 -; epoll_ctl_old 214 -; epoll_wait_old 215 -;
vserver 236 -;
"""

X86_64 = platform.machine() == "x86_64"


def _column(line: str) -> tuple[str, str]:
    name, x86_64, generic = line.split()
    return name, x86_64 if X86_64 else generic


NUMBERS: dict[str, int] = {
    name: int(number)
    for name, number in map(_column, filter(str.strip, _TABLE.split(";")))
    if number != "-"
}
"""Every call that the attacks name, where this architecture has it."""
