#include <algorithm>
#include <set>
#include <sstream>

#include "text/part.hpp"
#include "text/tokenizer_class.hpp"

namespace attune::text {
namespace {

/// The class of each model_type, as transformers 5.23 maps them; a type that is not here has none
/// of its own.
constexpr std::pair<const char*, const char*> types_of_classes[] = {
    {"AlbertTokenizer", "albert yoso"},
    {"BartTokenizer", "florence2"},
    {"BertGenerationTokenizer", "bert-generation"},
    {"BertTokenizer",
     "align bark bert blip bros chinese_clip convbert distilbert electra ernie flava "
     "git grounding-dino layoutlm megatron-bert mm-grounding-dino nomic_bert "
     "squeezebert tvp vilt visual_bert"},
    {"BigBirdTokenizer", "big_bird"},
    {"BioGptTokenizer", "biogpt"},
    {"BlenderbotSmallTokenizer", "blenderbot-small"},
    {"BlenderbotTokenizer", "blenderbot"},
    {"CLIPTokenizer",
     "aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video "
     "xclip"},
    {"CTRLTokenizer", "ctrl"},
    {"CamembertTokenizer", "camembert"},
    {"CanineTokenizer", "canine"},
    {"ClvpTokenizer", "clvp"},
    {"CohereTokenizer", "aya_vision cohere cohere2"},
    {"CpmAntTokenizer", "cpmant"},
    {"DPRQuestionEncoderTokenizer", "dpr"},
    {"DebertaTokenizer", "deberta"},
    {"DebertaV2Tokenizer", "deberta-v2"},
    {"DiaTokenizer", "dia"},
    {"EsmTokenizer", "esm"},
    {"EsmcTokenizer", "esmc esmfold2"},
    {"FNetTokenizer", "fnet"},
    {"FSMTTokenizer", "fsmt"},
    {"FlaubertTokenizer", "flaubert"},
    {"FunnelTokenizer", "funnel"},
    {"GPT2Tokenizer",
     "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip "
     "instructblipvideo jais2 opt phi starcoder2"},
    {"GPTNeoXJapaneseTokenizer", "gpt_neox_japanese"},
    {"GPTNeoXTokenizer", "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm"},
    {"GPTSw3Tokenizer", "gpt-sw3"},
    {"GemmaTokenizer",
     "diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text "
     "recurrent_gemma shieldgemma2 t5gemma zaya"},
    {"LEDTokenizer", "led"},
    {"LasrTokenizer", "lasr_ctc lasr_encoder"},
    {"LayoutLMv2Tokenizer", "layoutlmv2"},
    {"LayoutLMv3Tokenizer", "layoutlmv3"},
    {"LayoutXLMTokenizer", "layoutxlm"},
    {"LlamaTokenizer", "idefics idefics2"},
    {"LukeTokenizer", "luke"},
    {"LxmertTokenizer", "lxmert"},
    {"M2M100Tokenizer", "m2m_100"},
    {"MBartTokenizer", "mbart"},
    {"MPNetTokenizer", "mpnet"},
    {"MarianTokenizer", "marian"},
    {"MarkupLMTokenizer", "markuplm"},
    {"MgpstrTokenizer", "mgp-str"},
    {"MobileBertTokenizer", "mobilebert"},
    {"MvpTokenizer", "mvp"},
    {"NllbTokenizer", "nllb-moe"},
    {"NougatTokenizer", "nougat pp_formulanet"},
    {"OpenAIGPTTokenizer", "openai-gpt"},
    {"PLBartTokenizer", "plbart"},
    {"ParakeetTokenizer",
     "granite_speech5_ctc nemotron3_5_asr nemotron_asr_streaming parakeet_ctc "
     "parakeet_rnnt parakeet_tdt"},
    {"PegasusTokenizer", "pegasus"},
    {"PerceiverTokenizer", "perceiver"},
    {"ProphetNetTokenizer", "prophetnet"},
    {"Qwen2Tokenizer",
     "audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl "
     "internvl lighton_ocr moss_transcribe_diarize ovis2 qianfan_ocr qwen2 "
     "qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr "
     "qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice"},
    {"Qwen3_5Tokenizer", "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp"},
    {"RagTokenizer", "rag"},
    {"ReformerTokenizer", "reformer"},
    {"RemBertTokenizer", "rembert"},
    {"RoCBertTokenizer", "roc_bert"},
    {"RoFormerTokenizer", "roformer"},
    {"RobertaTokenizer",
     "bart bridgetower clap data2vec-text ibert lilt longformer mra roberta "
     "roberta-prelayernorm"},
    {"SeamlessM4TTokenizer", "seamless_m4t seamless_m4t_v2"},
    {"Siglip2Tokenizer", "siglip2"},
    {"SiglipTokenizer", "siglip"},
    {"Speech2TextTokenizer", "speech_to_text"},
    {"SpeechT5Tokenizer", "speecht5"},
    {"SplinterTokenizer", "splinter"},
    {"T5Tokenizer", "mt5 musicgen musicgen_melody switch_transformers t5"},
    {"TapasTokenizer", "tapas"},
    {"Tipsv2Tokenizer", "tipsv2"},
    {"TokenizersBackend",
     "EvollaModel aria beam bigbird_pegasus canary cohere_asr ernie4_5 ernie4_5_moe "
     "flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe glm_image "
     "glmasr got_ocr2 gpt_bigcode gradium_phonon_tts granite granitemoe "
     "granitemoehybrid granitemoeshared hyperclovax internlm3 iquestcoder jamba "
     "kimi_k25 kimi_linear kosmos-2 llava llava_next mimo_v2_flash minicpm3 "
     "minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m2 ministral ministral3 mistral "
     "mistral3 mistral_large4 mixtral modernbert modernbert-decoder molmo2 "
     "nemo_speechlm nemotron nystromformer olmo2 olmo3 olmo_hybrid paddleocr_vl "
     "pegasus_x persimmon phi3 phimoe pix2struct pixtral pocket_tts smolvlm stablelm "
     "umt5 vipllava voxtral voxtral_realtime xlm-roberta-xl"},
    {"UdopTokenizer", "udop"},
    {"VideoPrismTokenizer", "videoprism"},
    {"VitsTokenizer", "vits"},
    {"Wav2Vec2CTCTokenizer",
     "data2vec-audio hubert unispeech unispeech-sat wav2vec2 wav2vec2-bert "
     "wav2vec2-conformer"},
    {"WhisperTokenizer", "whisper"},
    {"XGLMTokenizer", "xglm"},
    {"XLMRobertaTokenizer", "gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod"},
    {"XLMTokenizer", "xlm"},
    {"XLNetTokenizer", "xlnet"},
};

/// Types whose published tokenizer_config.json names a wrong class.
constexpr const char* misnamed_types =
    "cohere_asr ernie4_5 ernie4_5_moe fuyu hyperclovax hyperclovax_vision_v2 internlm3 iquestcoder "
    "jamba llava llava_next minicpm3 "
    "minimax_m2 modernbert modernbert-decoder molmo2 nemotron paddleocr_vl phi3 phimoe qwen2 "
    "qwen3_5 qwen3_5_moe qwen3_5_moe_text "
    "qwen4_exp siglip2 smolvlm vipllava camembertv2-base";

/// Classes with rules of their own that no type above maps to.
constexpr const char* more_classes =
    "BarthezTokenizer BartphoTokenizer BertJapaneseTokenizer BertweetTokenizer ByT5Tokenizer "
    "CpmTokenizer DPRContextEncoderTokenizer "
    "DPRReaderTokenizer HerbertTokenizer MBart50Tokenizer MLukeTokenizer MyT5Tokenizer "
    "NllbTokenizer PhobertTokenizer Tipsv2Tokenizer "
    "Wav2Vec2PhonemeCTCTokenizer Siglip2Tokenizer XLNetTokenizer SentencePieceBackend";

std::set<std::string> words(const char* text) {
  std::istringstream stream(text);
  std::set<std::string> result;
  for (std::string word; stream >> word;) result.insert(word);
  return result;
}

const std::map<std::string, std::string>& classes_of_types() {
  static const auto all = [] {
    std::map<std::string, std::string> all;
    for (const auto& [name, types] : types_of_classes)
      for (const auto& type : words(types)) all.emplace(type, name);
    return all;
  }();
  return all;
}

bool is_misnamed(const std::string& type) {
  static const auto types = words(misnamed_types);
  return types.contains(type);
}

/// A class that transformers has, whether its rules are known here or not; any other name stands
/// for the one without rules.
bool exists(const std::string& name) {
  static const auto all = [] {
    auto all = words(more_classes);
    for (const auto& [type, name] : classes_of_types()) all.insert(name);
    return all;
  }();
  return all.contains(name) || find_tokenizer_class(name);
}

std::string without_fast(std::string name) {
  if (name.ends_with("Fast") && name != "PreTrainedTokenizerFast") name.erase(name.size() - 4);
  return name;
}

template <class AnyJson>
std::string text_of(const AnyJson& json, const char* key) {
  if (!json.is_object()) return "";
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->template get<std::string>() : "";
}

bool is_generic(const std::string& name) {
  const auto* found = find_tokenizer_class(name);
  return found && found->name == "TokenizersBackend";
}

/// Python code in the folder that transformers would run.
bool has_code(const OrderedJson& tokenizer_config) {
  const auto map =
      tokenizer_config.is_object() ? tokenizer_config.find("auto_map") : tokenizer_config.end();
  if (!tokenizer_config.is_object() || map == tokenizer_config.end()) return false;
  return map->is_array() || (map->is_object() && map->contains("AutoTokenizer"));
}

std::string chosen_class(const Json& config, const OrderedJson& tokenizer_config,
                         bool json_is_byte_level) {
  const auto type = text_of(config, "model_type");
  const auto found = classes_of_types().find(type);
  const std::string of_type = found == classes_of_types().end() ? "" : found->second;
  const bool misnamed = is_misnamed(type) || is_misnamed(text_of(config, "model_name"));
  auto named = without_fast(text_of(tokenizer_config, "tokenizer_class"));
  if (named.empty()) named = without_fast(text_of(config, "tokenizer_class"));
  const bool code = has_code(tokenizer_config) && !misnamed;
  if (code && of_type.empty() && !exists(named))
    fail(
        "tokenizer_config.json: \"auto_map\" names the model's own Python code, which is not run; "
        "save the tokenizer as a tokenizer.json and remove the key");
  if (!has_code(tokenizer_config) && !named.empty()) {
    if (named == "LlamaTokenizer" && of_type != "MistralCommonBackend" && !misnamed &&
        json_is_byte_level)
      return "TokenizersBackend";
    if (!of_type.empty() && of_type != named) {
      const auto& better = misnamed ? of_type : named;
      return !is_generic(of_type) && exists(better) ? better : "TokenizersBackend";
    }
  }
  if (!named.empty()) return exists(named) ? named : "TokenizersBackend";
  return of_type.empty() ? "TokenizersBackend" : of_type;
}

}  // namespace

const TokenizerClass& tokenizer_class(const Json& config, const OrderedJson& tokenizer_config,
                                      bool json_is_byte_level) {
  const auto name = chosen_class(config, tokenizer_config, json_is_byte_level);
  if (const auto* found = find_tokenizer_class(name)) return *found;
  fail(
      "the tokenizer has the class {} (tokenizer_class in tokenizer_config.json, or the "
      "model_type), which is not supported; set tokenizer to the path of the tokenizer.json itself",
      name);
}

}  // namespace attune::text
