#include "client.h"

#include <grpcpp/grpcpp.h>

#include <cstring>
#include <utility>

#include "open_inference.grpc.pb.h"

namespace matchrt {

static_assert(sizeof(Point) == 2 * sizeof(float), "points are copied from [N, 2] arrays of floats");

struct Client::State {
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub;
  ClientOptions options;

  void prepare(grpc::ClientContext& context) const {
    context.set_deadline(std::chrono::system_clock::now() + options.timeout);
    if (!options.token.empty()) context.AddMetadata("authorization", "Bearer " + options.token);
  }
};

namespace {

// One element of a BYTES tensor: its length as four little-endian bytes, then itself.
std::string bytes_element(const std::string& value) {
  std::string out;
  out.reserve(value.size() + 4);
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>((value.size() >> shift) & 0xff));
  return out += value;
}

void add_input(inference::ModelInferRequest& request, const std::string& name, const std::string& datatype,
               std::initializer_list<std::int64_t> shape, std::string raw) {
  auto* input = request.add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  for (const std::int64_t size : shape) input->add_shape(size);
  request.add_raw_input_contents(std::move(raw));
}

// The values of an output of 4-byte floats, `T` being one or two of them.
template <typename T>
std::vector<T> floats(const inference::ModelInferResponse& response, const std::string& name) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    const auto& output = response.outputs(i);
    if (output.name() != name) continue;
    if (output.datatype() != "FP32" || i >= response.raw_output_contents_size() || output.shape_size() < 1) break;
    const std::string& raw = response.raw_output_contents(i);
    const auto count = static_cast<std::size_t>(output.shape(0));
    if (raw.size() != count * sizeof(T)) break;
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), raw.data(), raw.size());
    return values;
  }
  throw ClientError(grpc::StatusCode::INTERNAL, "the answer has no usable output '" + name + "'");
}

Matches infer(inference::GRPCInferenceService::Stub& stub, grpc::ClientContext& context,
              inference::ModelInferRequest& request, const ClientOptions& options) {
  if (options.min_score) (*request.mutable_parameters())["min_score"].set_double_param(*options.min_score);
  inference::ModelInferResponse response;
  const grpc::Status status = stub.ModelInfer(&context, request, &response);
  if (!status.ok()) throw ClientError(status.error_code(), status.error_message());
  Matches matches{floats<Point>(response, "keypoints0"), floats<Point>(response, "keypoints1"),
                  floats<float>(response, "scores")};
  if (matches.keypoints0.size() != matches.scores.size() || matches.keypoints1.size() != matches.scores.size()) {
    throw ClientError(grpc::StatusCode::INTERNAL, "the answer's outputs differ in length");
  }
  return matches;
}

}  // namespace

Client::Client(const std::string& address, ClientOptions options) : state_(std::make_unique<State>()) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  state_->stub = inference::GRPCInferenceService::NewStub(channel);
  state_->options = std::move(options);
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

bool Client::ready() const {
  grpc::ClientContext context;
  state_->prepare(context);
  inference::ServerReadyResponse response;
  return state_->stub->ServerReady(&context, {}, &response).ok() && response.ready();
}

Matches Client::match(const ImageView& image0, const ImageView& image1) const {
  inference::ModelInferRequest request;
  request.set_model_name(state_->options.model);
  for (const auto& [name, image] : {std::pair{"image0", image0}, std::pair{"image1", image1}}) {
    const auto size = static_cast<std::size_t>(image.height * image.width * image.channels);
    add_input(request, name, "UINT8", {image.height, image.width, image.channels},
              std::string(reinterpret_cast<const char*>(image.data), size));
  }
  grpc::ClientContext context;
  state_->prepare(context);
  return infer(*state_->stub, context, request, state_->options);
}

Matches Client::match_files(const std::string& file0, const std::string& file1) const {
  inference::ModelInferRequest request;
  request.set_model_name(state_->options.model + "-files");
  add_input(request, "image0", "BYTES", {1}, bytes_element(file0));
  add_input(request, "image1", "BYTES", {1}, bytes_element(file1));
  grpc::ClientContext context;
  state_->prepare(context);
  return infer(*state_->stub, context, request, state_->options);
}

}  // namespace matchrt
