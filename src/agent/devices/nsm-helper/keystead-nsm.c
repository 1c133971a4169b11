/*
 * One request to the AWS Nitro security module: CBOR on standard input, the module's CBOR answer on standard output.
 *
 *   cc -static -O2 -Wall -o keystead-nsm keystead-nsm.c
 *
 * Node cannot make an ioctl without native code, so this does, and nothing else. The interface is Linux's include/uapi/linux/nsm.h,
 * spelt out here because older headers lack it. Exit codes: 0 answered, 1 the device failed, 2 wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

struct nsm_message {
    struct iovec request;
    struct iovec response;
};

#define NSM_REQUEST_MAX 0x1000
#define NSM_RESPONSE_MAX 0x3000
#define NSM_IOCTL _IOWR(0x0A, 0, struct nsm_message)

static int fail(const char *what) {
    fprintf(stderr, "keystead-nsm: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    static unsigned char request[NSM_REQUEST_MAX + 1], response[NSM_RESPONSE_MAX];
    const char *device = argc > 1 ? argv[1] : "/dev/nsm";
    size_t length = fread(request, 1, sizeof request, stdin);
    if (argc > 2 || length == 0 || length > NSM_REQUEST_MAX) {
        fprintf(stderr, "usage: keystead-nsm [DEVICE] < request.cbor > answer.cbor\n");
        return 2;
    }
    int fd = open(device, O_RDWR | O_CLOEXEC);
    if (fd < 0) return fail(device);
    struct nsm_message message = {
        .request = {.iov_base = request, .iov_len = length},
        .response = {.iov_base = response, .iov_len = sizeof response},
    };
    if (ioctl(fd, NSM_IOCTL, &message) != 0) return fail("ioctl");
    if (message.response.iov_len > sizeof response) {
        errno = EMSGSIZE;
        return fail("answer");
    }
    if (fwrite(response, 1, message.response.iov_len, stdout) != message.response.iov_len || fflush(stdout) != 0)
        return fail("write");
    return 0;
}
