#include "binding/engine_options.h"

#include "base/error.h"
#include "binding/values.h"
#include "model/stretch.h"

namespace longview::binding {

EngineOptions read_options(const Napi::Object& from) {
  EngineOptions options;
  options.cpu.threads = static_cast<int>(whole_or(from, "threads", 0, 0, 1024));
  options.cpu.isa = string_or(from, "isa", "");
  const std::string precision = string_or(from, "precision", "auto");
  options.cpu.precision = precision == "f32" ? Precision::kFloat32 : precision == "bf16" ? Precision::kBFloat16 : precision == "int8" ? Precision::kInt8 : Precision::kAuto;
  const std::string device = string_or(from, "device", "auto");
  LONGVIEW_CHECK(device == "auto" || device == "cuda" || device == "cpu", kInvalidArgument, "There is no device called \"%s\". Set longview.device to auto, cuda or cpu.", device.c_str());
  options.device = device == "cpu" ? DeviceChoice::kCpu : device == "cuda" ? DeviceChoice::kCuda : DeviceChoice::kAuto;
  const std::string weights = string_or(from, "gpuWeights", "auto");
  LONGVIEW_CHECK(weights == "auto" || weights == "fp8", kInvalidArgument, "There are no weights called \"%s\". Set longview.gpu.weights to auto or fp8.", weights.c_str());
  options.gpu.weights = weights == "fp8" ? GpuWeights::kFp8 : GpuWeights::kStored;
  const std::string kv = string_or(from, "kvFormat", "bf16");
  options.kv_format = kv_format_of(kv);
  LONGVIEW_CHECK(kv == "auto" || options.kv_format, kInvalidArgument, "There is no KV format called \"%s\". Set longview.cache.format to auto, bf16, q8, q4 or fp8.", kv.c_str());
  if (options.kv_format == KvFormat::kFloat32 && device == "auto") options.device = DeviceChoice::kCpu;  // exact: the reference
  options.stretch = whole_or(from, "stretch", 1, 1, kMostStretch);
  options.kv_budget_bytes = whole_or(from, "kvBudgetBytes", 0, 0, kMaxWhole);
  if (const Napi::Value prefill = from.Get("prefill"); prefill.IsObject()) {
    const std::string mode = string_or(prefill.As<Napi::Object>(), "mode", "auto"), target = string_or(prefill.As<Napi::Object>(), "target", "balanced");
    const auto known_mode = prefill_mode_of(mode);
    const auto known_target = prefill_target_of(target);
    LONGVIEW_CHECK(known_mode, kInvalidArgument, "There is no way of reading called \"%s\". Set longview.prefill.mode to auto, adaptive, minference or dense.", mode.c_str());
    LONGVIEW_CHECK(known_target, kInvalidArgument, "There is no target called \"%s\". Set longview.prefill.target to fast, balanced or exact.", target.c_str());
    options.prefill = {*known_mode, *known_target, string_or(prefill.As<Napi::Object>(), "profile", ""), strings(prefill.As<Napi::Object>().Get("profileFolders"))};
  }
  return options;
}

}  // namespace longview::binding
