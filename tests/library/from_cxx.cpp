/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* from_cxx.cpp: the public header in C++. Every type and constant is used once. */
#include <bvmm/bvmm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace
{

/* Ownership as C++ programs write it. */
class Config
{
  public:
    Config()
    {
        bvmm_error error;

        if (bvmm_config_new(&config_, &error) != 0) {
            abort();
        }
    }
    ~Config()
    {
        bvmm_config_free(config_);
    }
    Config(const Config &) = delete;
    Config &operator=(const Config &) = delete;
    bvmm_config *get() const
    {
        return config_;
    }

  private:
    bvmm_config *config_ = nullptr;
};

/* What a report says, by its structs. Without a report there is nothing to ask. */
uint64_t lost_bytes(const bvmm_report *report)
{
    uint64_t bytes = 0;

    for (size_t i = 0; const bvmm_content *file = bvmm_report_output_file(report, i); i++) {
        if (file->truncated != BVMM_NO || file->digest_ok != BVMM_YES || file->state == BVMM_STREAM_BROKEN) {
            bytes += file->has_announced_bytes ? file->announced_bytes - file->bytes : file->dropped_bytes;
        }
    }
    const bvmm_stream streams[] = {BVMM_STDOUT, BVMM_STDERR};
    for (bvmm_stream stream : streams) {
        const bvmm_content *content = bvmm_report_content(report, stream);

        bytes += content->via == BVMM_WAY_VSOCK ? content->dropped_bytes : 0;
    }
    const bvmm_duration &drain = bvmm_report_timings(report)->drain;
    const bvmm_missing_file *missing = bvmm_report_missing_file(report, 0);
    return bytes + (drain.known && missing != nullptr && missing->path != nullptr) +
           bvmm_report_console(report)->dropped_bytes + bvmm_report_output_file_count(report) +
           bvmm_report_missing_file_count(report);
}

int run(const Config &config)
{
    bvmm_report *report = nullptr;
    bvmm_error error = {};

    /* There is no such image: a failed call, with a kind and a message. */
    if (bvmm_run(config.get(), &report, &error) == 0 || report != nullptr) {
        printf("%llu bytes lost\n", static_cast<unsigned long long>(lost_bytes(report)));
        bvmm_report_free(report);
        return 3;
    }
    return error.kind == BVMM_ERROR_JOB && strstr(error.message, "/no/such/image") != nullptr ? 0 : 4;
}

} // namespace

int main()
{
    const char *const command[] = {"echo", "a b", nullptr};
    Config config;
    bvmm_error error = {};
    char *json = nullptr;

    if (bvmm_config_set_string(config.get(), "rootfs_path", "/no/such/image", &error) != 0 ||
        bvmm_config_set_strings(config.get(), "command", command, &error) != 0 ||
        bvmm_config_set_uint(config.get(), "limits.stdout_bytes", 65536, &error) != 0 ||
        bvmm_config_set_bool(config.get(), "vsock", false, &error) != 0) {
        return 1;
    }
    if (bvmm_config_json(config.get(), &json, &error) != 0 || strstr(json, "a b") == nullptr) {
        return 2;
    }
    free(json);
    return run(config);
}
