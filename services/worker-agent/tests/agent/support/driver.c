/* A driver's library made by hand. The file STATE says what it finds, a letter for each card, as it was when the
 * library was opened: H is here, L is lost, M is lost and only its memory tells so, U cannot be read for a reason
 * that nobody knows, D has the uuid of the first card, N has no name, - is not listed any more. Before them, ! is a library of
 * another version than the driver, and ? a driver that never answers. The uuids of its cards begin with PREFIX. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned int gpu, memory; } rates;

static struct { char letter; int number; } cards[16];
static unsigned int count;

int nvmlInit_v2(void) {
    char text[64] = "";
    FILE *file = fopen(STATE, "r");
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    if (text[0] == '!') return 18;
    while (text[0] == '?') pause();
    count = 0;
    for (int at = 0; text[at] && text[at] != '\n' && at < 16; at++)
        if (text[at] != '-') {
            cards[count].letter = text[at];
            cards[count++].number = at;
        }
    return 0;
}
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *out) { *out = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= count) return 2;
    *device = &cards[index];
    return cards[index].letter == 'L' ? 15 : cards[index].letter == 'U' ? 999 : 0;
}
static int number(void *device) { return ((int *)device)[1]; }
static char letter(void *device) { return *(char *)device; }
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    if (letter(device) == 'N') name[0] = 0;
    else snprintf(name, length, number(device) ? "NVIDIA A100-SXM4-80GB" : "NVIDIA H100 80GB HBM3");
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, PREFIX "%d", letter(device) == 'D' ? 0 : number(device));
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    info->total = 81559ULL << 20;
    return letter(device) == 'M' ? 15 : 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = number(device) ? 8 : 9;
    *minor = 0;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, rates *use) {
    use->gpu = number(device) ? 7 : 93;
    use->memory = 0;
    return letter(device) == 'M' ? 15 : 0;
}
