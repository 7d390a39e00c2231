"""The names that a program written for the SDK may use, by the module that has them there."""

AGENTS = """
    Agent AgentBase StopAtTools ToolsToFinalOutputFunction ToolsToFinalOutputResult AgentToolStreamEvent
    AgentOutputSchema AgentOutputSchemaBase
"""
RUNS = """
    Runner RunConfig RunResult RunResultStreaming result.RunResultBase RunErrorDetails ToolExecutionConfig ToolErrorFormatter
    ToolErrorFormatterArgs ToolNotFoundBehavior ToolNameCollisionPolicy ReasoningItemIdPolicy RunErrorHandlers
    RunErrorData RunErrorHandler RunErrorHandlerInput RunErrorHandlerResult
    run.CallModelData run.ModelInputData
"""
EVENTS = "RawResponsesStreamEvent RunItemStreamEvent AgentUpdatedStreamEvent StreamEvent"
ITEMS = """
    RunItem MessageOutputItem ToolCallItem ToolCallOutputItem HandoffCallItem HandoffOutputItem ReasoningItem
    ToolApprovalItem InputItem ItemHelpers ModelResponse TResponseInputItem Usage usage.RequestUsage
"""
TOOLS = """
    FunctionTool FunctionToolResult function_tool Tool default_tool_error_function ToolOutputText ToolOutputImage
    ToolOutputFileContent ToolOutputTextDict ToolOutputImageDict ToolOutputFileContentDict ToolOrigin
    ToolOriginType
    WebSearchTool FileSearchTool CodeInterpreterTool ImageGenerationTool HostedMCPTool
    decorators.tool decorators.input_guardrail decorators.output_guardrail decorators.tool_input_guardrail
    decorators.tool_output_guardrail tool_context.ToolContext
    function_schema.function_schema function_schema.FuncSchema function_schema.generate_func_documentation
    strict_schema.ensure_strict_json_schema
"""
HANDOFFS = """
    handoff Handoff HandoffInputData HandoffInputFilter nest_handoff_history default_handoff_history_mapper
    get_conversation_history_wrappers set_conversation_history_wrappers reset_conversation_history_wrappers
    extensions.handoff_filters.remove_all_tools extensions.handoff_prompt.RECOMMENDED_PROMPT_PREFIX
    extensions.handoff_prompt.prompt_with_handoff_instructions
"""
GUARDRAILS = """
    GuardrailFunctionOutput InputGuardrail InputGuardrailResult OutputGuardrail OutputGuardrailResult
    input_guardrail output_guardrail ToolGuardrailFunctionOutput ToolInputGuardrail ToolInputGuardrailData
    ToolInputGuardrailResult ToolOutputGuardrail ToolOutputGuardrailData ToolOutputGuardrailResult
    tool_input_guardrail tool_output_guardrail
"""
CONTEXT = "RunHooks AgentHooks AgentHookContext RunContextWrapper TContext"
SESSIONS = "Session SessionABC SessionSettings SQLiteSession RunState"
ERRORS = """
    AgentsException MaxTurnsExceeded ModelBehaviorError UserError ModelRefusalError ModelTimeoutError
    ToolTimeoutError InputGuardrailTripwireTriggered OutputGuardrailTripwireTriggered
    ToolInputGuardrailTripwireTriggered ToolOutputGuardrailTripwireTriggered
"""
MODELS = """
    Model ModelProvider ModelTracing ModelSettings OpenAIChatCompletionsModel OpenAIResponsesModel OpenAIProvider
    MultiProvider set_default_openai_key set_default_openai_client set_default_openai_api
    ModelRetrySettings ModelRetryBackoffSettings ModelRetryAdvice ModelRetryAdviceRequest
    ModelRetryNormalizedError RetryDecision RetryPolicy RetryPolicyContext retry_policies
"""
TRACING = """
    trace Trace Span SpanData SpanError agent_span custom_span function_span generation_span guardrail_span
    handoff_span response_span task_span turn_span mcp_tools_span AgentSpanData CustomSpanData FunctionSpanData
    GenerationSpanData GuardrailSpanData HandoffSpanData ResponseSpanData TaskSpanData TurnSpanData
    TracingProcessor add_trace_processor set_trace_processors set_trace_provider
    flush_traces get_current_trace get_current_span gen_trace_id gen_span_id
"""
OTHERS = """
    enable_verbose_stdout_logging set_tracing_disabled version.__version__
    run_demo_loop AgentToolInvocation OutputGuardrailBlockedMessageArgs OutputGuardrailBlockedMessageFormatter
    MCPListToolsItem MCPApprovalRequestItem MCPApprovalResponseItem MCPToolCancellationError
"""
MCP = """
    mcp.MCPServer mcp.MCPServerStdio mcp.MCPServerStdioParams mcp.MCPServerSse mcp.MCPServerSseParams
    mcp.MCPServerStreamableHttp mcp.MCPServerStreamableHttpParams mcp.MCPUtil mcp.MCPToolMetaContext
    mcp.MCPToolMetaResolver mcp.ToolFilter mcp.ToolFilterCallable mcp.ToolFilterContext mcp.ToolFilterStatic
    mcp.create_static_tool_filter mcp.MCPServerManager agent.MCPConfig
"""
TESTING = """
    testing.ScriptedModel testing.ModelStep testing.ModelStepSpec testing.ModelCall testing.assistant_message
    testing.function_call testing.UnexpectedModelCall testing.UnconsumedModelSteps testing.InvalidModelStep
"""

NAMES: list[str] = [
    *" ".join(
        (
            AGENTS,
            RUNS,
            EVENTS,
            ITEMS,
            TOOLS,
            HANDOFFS,
            GUARDRAILS,
            CONTEXT,
            SESSIONS,
            ERRORS,
            MODELS,
            TRACING,
            OTHERS,
            MCP,
            TESTING,
        )
    ).split()
]

UNLIKE: dict[str, str] = {
    "RunConfig(tool_name_collision_policy)": "two tools of one name are an error, not a warning",
    "RunConfig(model_provider)": "None stands for the one MultiProvider of the process",
    "result.RunResultBase*": "what both results have in common, which nobody builds",
    "RunResultStreaming(*)": "comes from a run, and is not built by hand",
    "RunResultStreaming=dataclass": "reads the run's record",
    "RunState=dataclass": "reads the run's record",
    "RunState.set_trace": "a run that goes on has a trace of its own",
    "RunState.*_tool_use_tracker_snapshot": "how the SDK keeps in mind which agents have used tools",
    "RawResponsesStreamEvent=dataclass": "its data is decoded when it is looked at",
    "AgentOutputSchema=dataclass": "nobody compares or replaces it",
    "*sandbox*": "sandboxes are not built",
    "ItemHelpers.tool_call_output_item(output_*)": "output types of tools are not built",
    "function_schema.FuncSchema.return_annotation": "output types of tools are not built",
    "Tool=*": "computers, shells, patches and tool search are not built",
    "RunItem=ToolSearch*": "tool search is not built",
    "RunItem=CompactionItem": "compaction is not built",
    "TResponseInputItem": "an alias for type checkers: the union would cost half a second to import",
    "ToolOutput*.check_at_least_one_required_field": "a validator that nobody calls",
    "OpenAIProvider.agent_registration": "registration of agents is not built",
    "testing.ModelStep(output)": "an empty tuple stands for an empty list",
}
"""What is not as in the SDK on purpose, by the same paths, and why."""
