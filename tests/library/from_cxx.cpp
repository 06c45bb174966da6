/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* from_cxx.cpp: the public header in C++. Every type and constant is used once. */
#include <bvmm/bvmm.h>

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

int run(const Config &config)
{
    bvmm_report *report = nullptr;
    bvmm_error error = {};

    /* There is no such image: a failed call, with a kind and a message. */
    if (bvmm_run(config.get(), &report, &error) == 0 || report != nullptr) {
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
