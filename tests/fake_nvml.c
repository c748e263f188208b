/* A libnvidia-ml.so for the tests: it answers from the file named by FAKE_NVML, one line an answer, and knows no more.

     <function> <NVML's return value> [v<version of the structure>] [bytes of each result in hexadecimal ...]

   of GPU 0, and "1:<function> ..." of GPU 1. "hang" and "crash" stand in place of a return value. What the file does
   not name is not supported, which is what the library says of a GPU that lacks something. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, VERSION_MISMATCH = 25, RESULTS = 4 };

static int answer(const char *name, void **results, int number, const unsigned *version)
{
    char line[4096], function[128], code[32];
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    int found = NOT_SUPPORTED;

    while (file && fgets(line, sizeof line, file)) {
        int at = 0;
        unsigned wanted;
        if (sscanf(line, "%127s %31s%n", function, code, &at) < 2 || strcmp(function, name))
            continue;
        if (!strcmp(code, "hang"))
            for (;;)
                pause();
        if (!strcmp(code, "crash"))
            abort();
        char *text = strtok(line + at, " \n");
        if (version && text && sscanf(text, "v%x", &wanted) == 1) {
            if (wanted != *version) {
                found = VERSION_MISMATCH;
                continue;
            }
            text = strtok(NULL, " \n");
        }
        found = atoi(code);
        for (int place = 0; text && place < number; place++, text = strtok(NULL, " \n")) {
            unsigned byte;
            for (int i = 0; sscanf(text + 2 * i, "%2x", &byte) == 1; i++)
                ((unsigned char *)results[place])[i] = (unsigned char)byte;
        }
        break;
    }
    if (file)
        fclose(file);
    return found;
}

static int of_gpu(void *device, const char *function, void **results, int number, const unsigned *version)
{
    char name[160];
    long index = (long)device - 1;
    if (index)
        snprintf(name, sizeof name, "%ld:%s", index, function);
    else
        snprintf(name, sizeof name, "%s", function);
    return answer(name, results, number, version);
}

#define CALL(name, number, ...) return of_gpu(device, #name, (void *[RESULTS]){__VA_ARGS__}, number, NULL)
#define ONE(name) int name(void *device, void *a) { CALL(name, 1, a); }
#define TWO(name) int name(void *device, void *a, void *b) { CALL(name, 2, a, b); }
#define FOUR(name) int name(void *device, void *a, void *b, void *c, void *d) { CALL(name, 4, a, b, c, d); }
#define TEXT(name) int name(void *device, void *a, unsigned length) { (void)length; CALL(name, 1, a); }
#define VERSIONED(name) int name(void *device, void *a) { return of_gpu(device, #name, (void *[RESULTS]){a}, 1, a); }

int nvmlInit_v2(void) { return answer("nvmlInit_v2", NULL, 0, NULL); }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(void *a, unsigned length)
{
    (void)length;
    return answer("nvmlSystemGetDriverVersion", (void *[RESULTS]){a}, 1, NULL);
}
int nvmlDeviceGetCount_v2(void *a) { return answer("nvmlDeviceGetCount_v2", (void *[RESULTS]){a}, 1, NULL); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    *device = (void *)(long)(index + 1);
    return of_gpu(*device, "nvmlDeviceGetHandleByIndex_v2", NULL, 0, NULL);
}
int nvmlDeviceGetTotalEccErrors(void *device, unsigned kind, unsigned since, void *a)
{
    if (kind != 1 || since != 0)
        return NOT_SUPPORTED;
    CALL(nvmlDeviceGetTotalEccErrors, 1, a);
}
int nvmlDeviceGetFieldValues(void *device, int number, unsigned *a)
{
    if (number != 1 || a[0] != 230)
        return NOT_SUPPORTED;
    CALL(nvmlDeviceGetFieldValues, 1, a);
}
int nvmlDeviceGetRetiredPages(void *device, unsigned cause, unsigned *a, unsigned long long *pages)
{
    char name[64];
    (void)pages;
    snprintf(name, sizeof name, "nvmlDeviceGetRetiredPages/%u", cause);
    return *a < 64 ? NOT_SUPPORTED : of_gpu(device, name, (void *[RESULTS]){a}, 1, NULL);
}
TEXT(nvmlDeviceGetUUID)
TEXT(nvmlDeviceGetName)
TEXT(nvmlDeviceGetVbiosVersion)
ONE(nvmlDeviceGetPciInfo_v3)
ONE(nvmlDeviceGetPersistenceMode)
ONE(nvmlDeviceGetRetiredPagesPendingStatus)
ONE(nvmlDeviceGetCurrPcieLinkWidth)
ONE(nvmlDeviceGetMaxPcieLinkWidth)
ONE(nvmlDeviceGetCurrPcieLinkGeneration)
ONE(nvmlDeviceGetGpuMaxPcieLinkGeneration)
ONE(nvmlDeviceGetMaxPcieLinkGeneration)
/* The newer name of this function is left out: a driver may know the older one alone. */
ONE(nvmlDeviceGetCurrentClocksThrottleReasons)
ONE(nvmlDeviceGetPerformanceState)
ONE(nvmlDeviceGetUtilizationRates)
TWO(nvmlDeviceGetEccMode)
TWO(nvmlDeviceGetMigMode)
FOUR(nvmlDeviceGetRemappedRows)
VERSIONED(nvmlDeviceGetSramEccErrorStatus)
VERSIONED(nvmlDeviceGetMarginTemperature)
VERSIONED(nvmlDeviceGetMemoryInfo_v2)
VERSIONED(nvmlDeviceGetGpuFabricInfoV)
