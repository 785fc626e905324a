// A head profile: what each head of one model attends to, found by measuring that model once, as a file.
//
// The file is one JSON object:
//   { "format": "longview-head-profile", "version": 1,
//     "model": "<fingerprint, 32 hexadecimal digits>", "kernel_version": 2, "device": "cpu",
//     "layers": [ [ <head>, ... ], ... ] }       one list a layer, one object a query head, in the model's order
// with a head one of
//   { "pattern": "dense" }
//   { "pattern": "a_shape", "sink": 100, "window": 800 }
//   { "pattern": "vertical_slash", "columns": 1000, "diagonals": 6096 }
//   { "pattern": "block_sparse", "blocks": 100 }
//   { "pattern": "adaptive", "sink": 128, "window": 512, "rule": "share", "threshold": 0.001 }
// A head names all budgets of its pattern and no others; it may add what was measured: "density", "recall", "error". Further
// members of the outer object are passed over: a date, the text that was measured on.
//
// MInference's published files are read too: a list with one object a layer, { "<head>": [type, vertical, slash, score] }, of
// the types vertical_and_slash, stream_llm and block_sparse. They do not say which model they are of. The score is the mass recalled, or
// in all of a file's heads the number of outputs that are off, which says nothing of mass.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sparse/pattern.h"

namespace longview {

// Rises when the kernels come to choose otherwise by the same plan, so that a profile's measurements no longer hold.
constexpr int32_t kProfileKernelVersion = 2;

// The model that a profile is read for.
struct ProfiledModel {
  std::string fingerprint;  // as fingerprint() gives it
  int64_t layers = 0, heads = 0;  // heads: query heads of a layer
  std::string device = {};  // DeviceInfo::kind; empty where it does not matter
};

struct HeadProfile {
  std::string model_fingerprint;  // empty where the file names none (MInference)
  int32_t kernel_version = 0;     // 0 where the file names none
  std::string device;             // the kind that it was measured on, "cpu" or "cuda"; empty where the file names none
  int64_t layers = 0, heads = 0;
  std::vector<HeadPlan> plans;    // [layers * heads]
  // Of each head on the calibration text, [layers * heads], NaN where it was not measured: keys and means visited of those that
  // a dense head visits, attention mass recalled, squared error of the layer's output relative to its input (its root mean
  // square over rows).
  std::vector<float> density, recall, error;
  std::string note;               // a sentence for the log, empty where there is nothing to say
};

// Throws kFileNotFound where there is no such file, kInvalidArgument where the profile is another model's, kUnknownFormat
// where it is no profile or of a later version, kFileCorrupt where a part of it makes no sense.
HeadProfile read_head_profile(const std::string& path, const ProfiledModel& model);

// The same of text; `what` names it in error sentences.
HeadProfile parse_head_profile(std::string_view text, const ProfiledModel& model, const std::string& what);

// In our own format. Throws kInvalidArgument where the profile is one that parse_head_profile would not take back.
std::string head_profile_json(const HeadProfile& profile);

// As a whole, and after the same checks. Throws kDiskFull or kCannotWrite too.
void write_head_profile(const std::string& path, const HeadProfile& profile);

}  // namespace longview
