/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * link.c: frames to the host over vsock or serial. Blocks, with bounds.
 */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* does not include <sys/socket.h> in older headers */

#define CONTROL_PORT 5003
#define DRAIN_SECONDS 10
#define CTRL_C 3
#define CTRL_BACKSLASH 28

/* klogctl(2): no message below an emergency goes to the console; back to what it was. */
#define KLOG_CONSOLE_OFF 6
#define KLOG_CONSOLE_ON 7

uint64_t clock_boottime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void link_init(struct link *link, const uint8_t nonce[NONCE_BYTES])
{
    *link = (struct link){
        .via = VIA_NONE,
        .serial_fd = -1,
        .control_fd = -1,
        .connect = link_connect_vsock,
    };
    memcpy(link->nonce, nonce, NONCE_BYTES);
}

/* ---- Serial ---------------------------------------------------------------------------------- */

/*
 * Bytes go through as they are: no newline is translated, nothing is echoed, nothing stops us. But
 * Ctrl-C and Ctrl-\ are signals: the host asks init so to end, on a machine without a keyboard
 * controller or when it is urgent.
 */
static void make_raw(int fd)
{
    struct termios termios;

    if (tcgetattr(fd, &termios) < 0) {
        return; /* no terminal: a pipe or socket in tests */
    }
    cfmakeraw(&termios);
    termios.c_iflag &= (tcflag_t) ~(IXON | IXOFF);
    termios.c_lflag |= ISIG | NOFLSH;
    termios.c_cc[VINTR] = CTRL_C;
    termios.c_cc[VQUIT] = CTRL_BACKSLASH;
    termios.c_cc[VSUSP] = _POSIX_VDISABLE;
    termios.c_cflag |= CLOCAL;
    termios.c_cflag &= (tcflag_t)~CRTSCTS;
    tcsetattr(fd, TCSANOW, &termios);
    tcflow(fd, TCOON);
}

int link_open_serial(void)
{
    static const char *const names[] = {"/dev/ttyS0", "/dev/ttyAMA0", "/dev/console"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        int fd = open(names[i], O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

        if (fd >= 0) {
            make_raw(fd);
            /* Signals of its keys go to init: its session has no other terminal, and the command
             * has a session of its own. */
            (void)setsid();
            (void)ioctl(fd, TIOCSCTTY, 1);
            return fd;
        }
    }
    return -errno;
}

static void on_alarm(int signal)
{
    (void)signal; /* to interrupt a system call is all that it is for */
}

void link_drain(const struct link *link)
{
    struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART */

    if (link->via != VIA_SERIAL) {
        return;
    }
    sigaction(SIGALRM, &action, NULL);
    alarm(DRAIN_SECONDS);
    tcdrain(link->serial_fd);
    alarm(0);
}

void link_close(struct link *link)
{
    /* With a linger time, close() waits until the host has answered the shutdown, which it gets
     * behind everything else. */
    const struct linger linger = {.l_onoff = 1, .l_linger = LINK_CLOSE_SECONDS};

    link_drain(link);
    if (link->via == VIA_VSOCK && link->control_fd >= 0) {
        setsockopt(link->control_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        close(link->control_fd);
        link->control_fd = -1;
    }
}

void link_quiet(const struct link *link, bool quiet)
{
    char discarded[256];
    int fd;

    if (link->via != VIA_SERIAL || getpid() != 1) {
        return;
    }
    klogctl(quiet ? KLOG_CONSOLE_OFF : KLOG_CONSOLE_ON, NULL, 0);
    if (!quiet) {
        return;
    }
    /* Another CPU may be in the middle of a line: the list of consoles is read under the lock that
     * it holds while it prints. */
    fd = open("/proc/consoles", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        while (read(fd, discarded, sizeof(discarded)) > 0) {
        }
        close(fd);
    }
}

/* ---- Vsock ----------------------------------------------------------------------------------- */

static int wait_connected(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t length = sizeof(error);
    int r = poll(&poll_fd, 1, LINK_CONNECT_MS);

    if (r <= 0) {
        return r == 0 ? -ETIMEDOUT : -errno;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        return -errno;
    }
    return -error;
}

int link_connect_vsock(uint32_t port)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK,
        .svm_cid = VSOCK_CID_HOST,
        .svm_port = port,
    };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = 0;

    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        r = errno == EINPROGRESS ? wait_connected(fd) : -errno;
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

/* ---- Frames ---------------------------------------------------------------------------------- */

int write_fully(int fd, const void *bytes, size_t count)
{
    const uint8_t *next = bytes;

    while (count > 0) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        ssize_t written = write(fd, next, count);

        if (written >= 0) {
            next += written;
            count -= (size_t)written;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        }
        if (errno == EAGAIN && poll(&poll_fd, 1, LINK_PATIENCE_MS) == 0) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

static int send_frame(struct link *link, enum frame_type type, enum stream_id stream,
                      uint64_t offset, const void *payload, size_t bytes)
{
    static uint8_t frame[FRAME_MAX_BYTES]; /* init has one thread */
    size_t length =
        frame_encode(frame, link->nonce, type, stream, link->sequence++, offset, payload, bytes);

    if (link->via == VIA_NONE) {
        return -ENOTCONN;
    }
    return write_fully(link->via == VIA_VSOCK ? link->control_fd : link->serial_fd, frame, length);
}

static int send_hello(struct link *link, uint64_t boottime_ns)
{
    struct frame_hello hello = {
        .boottime_ns = boottime_ns,
        .version = GUEST_JOB_VERSION,
        .via = link->via,
    };

    return send_frame(link, FRAME_HELLO, 0, 0, &hello, sizeof(hello));
}

static int take_serial(struct link *link, uint64_t boottime_ns)
{
    if (link->control_fd >= 0) {
        close(link->control_fd);
        link->control_fd = -1;
    }
    link->via = link->serial_fd >= 0 ? VIA_SERIAL : VIA_NONE;
    link->sequence = 0;
    link->announced_bytes = 0;
    if (link->via == VIA_SERIAL) {
        make_raw(link->serial_fd); /* the command may have changed it */
        link_quiet(link, true);
    }
    return send_hello(link, boottime_ns);
}

int link_hello(struct link *link, bool want_vsock, uint64_t boottime_ns)
{
    if (want_vsock) {
        link->control_fd = link->connect(CONTROL_PORT);
        if (link->control_fd >= 0) {
            link->via = VIA_VSOCK;
            if (send_hello(link, boottime_ns) == 0) {
                return 0;
            }
        } else {
            fprintf(stderr, "bvmm-init: no vsock (%s); results go over the serial console\n",
                    strerror(-link->control_fd));
        }
    }
    return take_serial(link, boottime_ns);
}

int link_fall_back(struct link *link)
{
    int r = take_serial(link, clock_boottime_ns());

    if (r == 0 && link->said_end) {
        r = send_frame(link, FRAME_END, 0, 0, &link->end, sizeof(link->end));
    }
    return r;
}

int link_send(struct link *link, enum frame_type type, enum stream_id stream, uint64_t offset,
              const void *payload, size_t bytes)
{
    int r = send_frame(link, type, stream, offset, payload, bytes);

    if (r < 0 && link->via == VIA_VSOCK) {
        r = link_fall_back(link);
        return r < 0 ? r : -EAGAIN;
    }
    return r;
}

int link_say(struct link *link, enum frame_type type, const void *payload, size_t bytes)
{
    int r = link_send(link, type, 0, 0, payload, bytes);

    if (r == -EAGAIN) {
        r = link_send(link, type, 0, 0, payload, bytes);
    }
    return r;
}

int link_say_end(struct link *link, const struct frame_end *end)
{
    int r = link_say(link, FRAME_END, end, sizeof(*end));

    link->end = *end;
    link->said_end = true;
    return r;
}
